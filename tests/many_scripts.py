"""Texts in many scripts, with emoji, odd white space, and lengths around an encoder's limit."""

from __future__ import annotations

import random

# Beginnings of the Universal Declaration of Human Rights and other plain sentences.
SENTENCES = (
    "All human beings are born free and equal in dignity and rights.",
    "Todos los seres humanos nacen libres; ¿y el niño? ¡También!",
    "Tous les êtres humains naissent libres, l'œuvre naïve de Noël.",
    "Alle Menschen sind frei: Straße, GRÖSSE, Füße, ẞ.",
    "Tutti gli esseri umani nascono liberi ed eguali in dignità.",
    "Wszyscy ludzie rodzą się wolni; zażółć gęślą jaźń.",
    "Všichni lidé rodí se svobodní, příliš žluťoučký kůň.",
    "Bütün insanlar hür; İstanbul'da ışık, Iğdır'da İZMİR.",
    "Tất cả mọi người sinh ra đều được tự do và bình đẳng.",
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι. ΟΔΥΣΣΕΥΣ ΣΟΦΟΣ",
    "Все люди рождаются свободными и равными. Ёлка, подъезд, йод.",
    "Всички хора се раждат свободни; Усі люди її, ґанок.",
    "כל בני האדם נולדו בני חורין ושווים בערכם: שָׁלוֹם.",
    "يولد جميع الناس أحرارا متساوين في الكرامة، مُحَمَّد ١٢٣.",
    "تمام انسان‌ها آزاد به دنیا می‌آیند و برابرند ۴۵۶.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में स्वतंत्रता।",
    "সমস্ত মানুষ স্বাধীনভাবে জন্মগ্রহণ করে।",
    "மனிதப் பிறிவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்.",
    "మానవులెల్లరును జన్మతః స్వతంత్రులును సమానులును.",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน",
    "人人生而自由,在尊严和权利上一律平等。漢字カタカナ",
    "すべての人間は、生まれながらにして自由であり、がぎぐげご。ﾊﾝｶｸ",
    "모든 인간은 태어날 때부터 자유로우며 존엄하다.",
    "ყველა ადამიანი იბადება თავისუფალი. ᲗᲐᲕᲘ",
    "Բոլոր մարդիկ ծնվում են ազատ ու հավասար։ ԵՒ և",
    "ሁሉም ሰዎች ነጻ ሆነው ተወለዱ።",
    "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ ꭰꭱꭲ",
    "ខ្មែរ មនុស្សទាំងអស់",
    "བོད་ཡིག མི་རིགས།",
    "𝕸𝖆𝖙𝖍 𝒳 = √(α²+β²) ≤ ∞, ½ ﬁn ﬂ Å Å é é",
    "😀 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 👍🏽 ☃️ ❤️‍🔥",
    "e-mail: a.b+c@example.org, https://example.org/?q=1&r=%20#x $5.00 50% 3/4 don't",
    "tab\tnew\nline\r\nnull\x00bell\x07del\x7f soft\u00adhyphen zero\u200bwidth \ufeffmark",
    "no\u00a0break thin\u2009space ideographic\u3000space line\u2028separator \u202eright\u202c",
    "replacement \ufffd private \ue000 unassigned \U0001fadd tag \U000e0041",
    '```code``` <b>tag</b> &amp; {json: [1, 2]} \\n "quoted" «guillemets» „unten“ ‚a‘',
    "pneumonoultramicroscopicsilicovolcanoconiosis" * 3,
    "[CLS] [SEP] [MASK] [UNK] [PAD] special",
)


def texts(count: int = 1000) -> list[str]:
    """The same ones every time: sentences, mixtures, empty ones, and 250 to 305 words."""
    chance = random.Random(0)  # noqa: S311
    found = ["", " ", "\n", *SENTENCES]
    while len(found) < count:
        kind = chance.random()
        if kind < 0.5:
            some = chance.choices(SENTENCES, k=chance.randint(1, 4))
            found.append(" ".join(some))
        elif kind < 0.75:
            letters = "".join(chance.choices(SENTENCES, k=6))
            found.append("".join(chance.choices(letters, k=chance.randint(1, 80))))
        elif kind < 0.85:
            words = " ".join(SENTENCES).split()
            found.append(" ".join(chance.choices(words, k=chance.randint(20, 100))))
        else:  # around the limit of 256 tokens: a letter is one token, or two with its space
            letters = chance.choices("abcdefgh", k=chance.choice((130, 140, 260, 280, 300)))
            found.append(" ".join(letters))
    return found
