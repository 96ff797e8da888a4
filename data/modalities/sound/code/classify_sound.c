// Classify recordings with an edge model in C: ONNX Runtime (1.17 or newer) and jansson are all it
// needs.
//
//     apt-get install gcc pkg-config libonnxruntime-dev libjansson-dev
//     gcc -O2 classify_sound.c -o classify_sound $(pkg-config --cflags --libs libonnxruntime jansson) -lm
//     ./classify_sound edge.onnx recording.wav [recording.wav ...]
//
// Debian has libonnxruntime-dev from 13 on; elsewhere take the archive that ONNX Runtime releases,
// and say where its header (-I) and library (-L, -lonnxruntime) are.
//
// Reads WAV: PCM of 8 to 32 bits, float of 32 or 64. Prints a line for each recording: its name, the
// class, and the probability, the mean over its windows. Everything is as in training, but for
// soxr, which resamples there: sound_resample has soxr's pass band, and its samples differ by about
// 1e-4. Copy this file into your own program: edge_open, edge_classify, edge_close, sound_read and
// sound_resample are what it needs. The machine must be little-endian, as WAV is.

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <onnxruntime_c_api.h>

#define ORT_VERSION 17          // of ONNX Runtime 1.17; newer ones answer to it as well
#define MOST_SAMPLES 2000000000 // of a recording
#define WORDS 512
#define PI 3.14159265358979323846
#define PASS 0.91363 // of the lower Nyquist frequency: what stays (soxr's HQ); above 1 nothing does
#define ATTENUATION 132.0
#define BETA (0.1102 * (ATTENUATION - 8.7)) // of Kaiser's window
#define MOST_WEIGHTS 4000000                // that are kept

// Mono, -1 to 1. free(samples) when done.
struct sound {
    float *samples;
    size_t count;
    uint32_t rate;
    char why[WORDS]; // it cannot be read
};

struct edge {
    const OrtApi *ort;
    OrtEnv *env;
    OrtSession *session;
    json_t *classes; // an array of strings
    double threshold, silence;
    long rate, window, hop;
    bool repeat;           // short recordings, instead of zeros
    int64_t label;         // of the last recording: index of its class, -1 for "unknown"
    double *probabilities; // of the last recording, one for each class
    char why[WORDS];       // it cannot be used, or a recording not be classified
};

static uint32_t number(const unsigned char *at, int bytes)
{
    uint32_t value = 0;
    for (int i = bytes; i--;)
        value = value << 8 | at[i];
    return value;
}

static double sample(const unsigned char *at, int kind, int bits)
{
    float single;
    double large;
    if (kind == 3 && bits == 32)
        return memcpy(&single, at, 4), single;
    if (kind == 3)
        return memcpy(&large, at, 8), large;
    if (bits == 8)
        return (*at - 128) / 128.0;
    // The highest byte has the sign: shifted to the top, and divided by what 32 bits hold.
    return (int32_t)(number(at, bits / 8) << (32 - bits)) / 2147483648.0;
}

static bool mix(struct sound *sound, const unsigned char *data, size_t length, int kind, int bits,
                size_t channels)
{
    bool whole = kind == 1 && (bits == 8 || bits == 16 || bits == 24 || bits == 32);
    bool known = whole || (kind == 3 && (bits == 32 || bits == 64));
    if (!known || !channels || sound->rate < 1000 || sound->rate > 768000) {
        snprintf(sound->why, WORDS, "WAV of kind %d, %d bits, %zu channels, %u Hz is not read", kind,
                 bits, channels, sound->rate);
        return false;
    }
    size_t bytes = (size_t)bits / 8;
    sound->count = length / (bytes * channels);
    sound->samples = sound->count ? malloc(sound->count * sizeof *sound->samples) : NULL;
    if (!sound->samples) {
        snprintf(sound->why, WORDS, sound->count ? "it is too large" : "it has no samples");
        return false;
    }
    for (size_t i = 0; i < sound->count; i++) {
        double sum = 0;
        for (size_t channel = 0; channel < channels; channel++, data += bytes)
            sum += sample(data, kind, bits);
        sound->samples[i] = (float)(sum / (double)channels);
        if (!isfinite(sound->samples[i])) {
            snprintf(sound->why, WORDS, "it has samples that are NaN or infinite");
            return false;
        }
    }
    return true;
}

static bool parse(struct sound *sound, const unsigned char *file, size_t size)
{
    int kind = 0, bits = 0;
    size_t channels = 0;
    if (size < 12 || memcmp(file, "RIFF", 4) || memcmp(file + 8, "WAVE", 4)) {
        snprintf(sound->why, WORDS, "it is not a WAV file");
        return false;
    }
    for (size_t at = 12; at + 8 <= size;) {
        const unsigned char *chunk = file + at;
        size_t length = number(chunk + 4, 4), left = size - (at += 8);
        if (!memcmp(chunk, "fmt ", 4) && length >= 16 && left >= 16) {
            kind = (int)number(chunk + 8, 2), channels = number(chunk + 10, 2);
            sound->rate = number(chunk + 12, 4), bits = (int)number(chunk + 22, 2);
            if (kind == 0xfffe && length >= 26 && left >= 26)
                kind = (int)number(chunk + 32, 2);
        } else if (!memcmp(chunk, "data", 4) && kind) {
            if (left < length && length < 0x7ffff000) {
                snprintf(sound->why, WORDS, "it has %zu of %zu bytes of samples", left, length);
                return false;
            }
            return mix(sound, file + at, left < length ? left : length, kind, bits, channels);
        }
        if (length > left)
            break;
        at += length + length % 2;
    }
    snprintf(sound->why, WORDS, "it has no samples");
    return false;
}

// Read a WAV file, mono; if it cannot be, sound->why says why and nothing is kept.
bool sound_read(struct sound *sound, const char *path)
{
    memset(sound, 0, sizeof *sound);
    FILE *file = fopen(path, "rb");
    long size = -1;
    if (!file || fseek(file, 0, SEEK_END) || (size = ftell(file)) < 0 || fseek(file, 0, SEEK_SET))
        snprintf(sound->why, WORDS, "%s", strerror(errno));
    unsigned char *content = size > 0 ? malloc((size_t)size) : NULL;
    bool done = content && fread(content, 1, (size_t)size, file) == (size_t)size;
    if (!done && !*sound->why)
        snprintf(sound->why, WORDS, size ? "it cannot be read whole" : "the file is empty");
    done = done && parse(sound, content, (size_t)size);
    free(content);
    if (file)
        fclose(file);
    if (!done) {
        free(sound->samples);
        sound->samples = NULL;
    }
    return done;
}

static double bessel(double x)
{
    double sum = 1, term = 1;
    for (int k = 1; term > 1e-12 * sum; k++)
        sum += term *= x / (2 * k) * (x / (2 * k));
    return sum;
}

static void fill(double *weights, size_t taps, double reach, double phase, double cut, double half)
{
    for (size_t tap = 0; tap < taps; tap++) {
        double t = (double)tap - reach - phase, inside = 1 - t / half * (t / half), x = PI * cut * t;
        weights[tap] = inside < 0 ? 0
                                  : cut * (x != 0 ? sin(x) / x : 1) * bessel(BETA * sqrt(inside)) /
                                        bessel(BETA);
    }
}

// Bring samples to another rate: a sinc with Kaiser's window, at a phase for each output sample.
bool sound_resample(struct sound *sound, uint32_t rate)
{
    uint64_t a = sound->rate, b = rate;
    if (a == b)
        return true;
    while (b) {
        uint64_t left = a % b;
        a = b, b = left;
    }
    uint64_t up = rate / a, down = sound->rate / a;
    double low = rate < sound->rate ? (double)rate / sound->rate : 1, cut = (PASS + 1) / 2 * low;
    double half = (ATTENUATION - 7.95) / (2.285 * PI * (1 - PASS) * low) / 2, reach = floor(half);
    size_t taps = 2 * (size_t)reach + 2;
    bool keep = up <= MOST_WEIGHTS / taps;
    uint64_t count = (2 * (uint64_t)sound->count * rate + sound->rate) / (2 * (uint64_t)sound->rate);
    double *weights = calloc((keep ? up : 1) * taps, sizeof *weights);
    bool *known = calloc(up, sizeof *known);
    float *made = count && count < MOST_SAMPLES ? malloc(count * sizeof *made) : NULL;
    bool done = weights && known && made;
    for (uint64_t i = 0; done && i < count; i++) {
        uint64_t phase = i * down % up;
        double *own = weights + (keep ? phase * taps : 0), sum = 0;
        if (!known[phase])
            fill(own, taps, reach, (double)phase / (double)up, cut, half), known[phase] = keep;
        int64_t first = (int64_t)(i * down / up) - (int64_t)reach;
        for (size_t tap = first < 0 ? (size_t)-first : 0; tap < taps; tap++) {
            if (first + (int64_t)tap >= (int64_t)sound->count)
                break;
            sum += own[tap] * sound->samples[first + (int64_t)tap];
        }
        made[i] = (float)sum;
    }
    free(weights);
    free(known);
    if (!done) {
        free(made);
        snprintf(sound->why, WORDS, "it is too short or too large to be resampled");
        return false;
    }
    free(sound->samples);
    sound->samples = made, sound->count = count, sound->rate = rate;
    return true;
}

static bool ok(struct edge *edge, OrtStatus *status)
{
    if (!status)
        return true;
    snprintf(edge->why, WORDS, "%s", edge->ort->GetErrorMessage(status));
    edge->ort->ReleaseStatus(status);
    return false;
}

#define ORT(call) ok(edge, edge->ort->call)

// An entry of the metadata; empty where there is none.
static bool look_up(struct edge *edge, OrtModelMetadata *about, const char *key, char *text,
                    size_t size)
{
    OrtAllocator *memory = NULL;
    char *found = NULL;
    bool done = ORT(GetAllocatorWithDefaultOptions(&memory)) &&
                ORT(ModelMetadataLookupCustomMetadataMap(about, memory, key, &found));
    snprintf(text, size, "%s", found ? found : "");
    if (found)
        memory->Free(memory, found);
    return done;
}

static bool read_classes(struct edge *edge, OrtModelMetadata *about)
{
    OrtAllocator *memory = NULL;
    char *text = NULL;
    if (!ORT(GetAllocatorWithDefaultOptions(&memory)) ||
        !ORT(ModelMetadataLookupCustomMetadataMap(about, memory, "headstart.classes", &text)))
        return false;
    edge->classes = text ? json_loads(text, 0, NULL) : NULL;
    if (text)
        memory->Free(memory, text);
    size_t count = json_array_size(edge->classes); // 0 as well where it is no array
    edge->probabilities = calloc(count + 1, sizeof *edge->probabilities);
    bool done = count && edge->probabilities;
    for (size_t i = 0; i < count; i++)
        done = done && json_is_string(json_array_get(edge->classes, i));
    return done;
}

static bool read_metadata(struct edge *edge)
{
    OrtModelMetadata *about = NULL;
    char kind[32], modality[32], short_[32], texts[5][32];
    const char *keys[] = {"headstart.rate", "headstart.window", "headstart.hop", "headstart.silence",
                          "headstart.threshold"};
    bool done = ORT(SessionGetModelMetadata(edge->session, &about)) &&
                look_up(edge, about, "headstart.kind", kind, sizeof kind) &&
                look_up(edge, about, "headstart.modality", modality, sizeof modality) &&
                look_up(edge, about, "headstart.short", short_, sizeof short_);
    for (int i = 0; done && i < 5; i++)
        done = look_up(edge, about, keys[i], texts[i], sizeof texts[i]);
    if (done && (strcmp(kind, "classifier") || strcmp(modality, "sound"))) {
        snprintf(edge->why, WORDS, "it is not an edge model for recordings");
        done = false;
    } else if (done) {
        edge->rate = atol(texts[0]), edge->window = atol(texts[1]), edge->hop = atol(texts[2]);
        edge->silence = atof(texts[3]), edge->threshold = atof(texts[4]); // 0 where there is none
        edge->repeat = !strcmp(short_, "repeat");
        done = read_classes(edge, about) && edge->rate > 99 && edge->window > 0 && edge->hop > 0;
        if (!done)
            snprintf(edge->why, WORDS, "its metadata is damaged: export the classifier again");
    }
    if (about)
        edge->ort->ReleaseModelMetadata(about);
    return done;
}

// Also after edge_open failed.
void edge_close(struct edge *edge)
{
    if (edge->ort) {
        edge->ort->ReleaseSession(edge->session);
        edge->ort->ReleaseEnv(edge->env);
    }
    json_decref(edge->classes);
    free(edge->probabilities);
}

// Load an edge model; if it cannot be used, edge->why says why.
bool edge_open(struct edge *edge, const char *path)
{
    memset(edge, 0, sizeof *edge);
    edge->ort = OrtGetApiBase()->GetApi(ORT_VERSION);
    if (!edge->ort) {
        snprintf(edge->why, WORDS, "this ONNX Runtime is older than 1.%d", ORT_VERSION);
        return false;
    }
    OrtSessionOptions *options = NULL;
    bool done = ORT(CreateEnv(ORT_LOGGING_LEVEL_ERROR, "edge", &edge->env)) &&
                ORT(CreateSessionOptions(&options)) &&
                ORT(CreateSession(edge->env, path, options, &edge->session)) && read_metadata(edge);
    edge->ort->ReleaseSessionOptions(options);
    return done;
}

static double loudness(const float *samples, size_t count, size_t size)
{
    double loudest = 0;
    for (size_t start = 0; start < count; start += size) {
        double sum = 0;
        for (size_t i = start; i < count && i < start + size; i++)
            sum += (double)samples[i] * samples[i];
        loudest = fmax(loudest, sum / (double)size);
    }
    return 10 * log10(loudest);
}

// Add the probabilities of one window.
static bool run(struct edge *edge, float *window)
{
    const char *inputs[] = {"waveform"}, *outputs[] = {"probabilities"};
    const int64_t shape[] = {1, edge->window};
    OrtMemoryInfo *place = NULL;
    OrtValue *waveform = NULL, *found = NULL;
    OrtTensorTypeAndShapeInfo *type = NULL;
    void *values = NULL;
    size_t count = 0, bytes = (size_t)edge->window * sizeof *window;
    bool done = ORT(CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &place)) &&
                ORT(CreateTensorWithDataAsOrtValue(place, window, bytes, shape, 2,
                                                   ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &waveform)) &&
                ORT(Run(edge->session, NULL, inputs, (const OrtValue *const *)&waveform, 1, outputs,
                        1, &found)) &&
                ORT(GetTensorTypeAndShape(found, &type)) &&
                ORT(GetTensorShapeElementCount(type, &count)) &&
                ORT(GetTensorMutableData(found, &values));
    if (done && count != json_array_size(edge->classes)) {
        snprintf(edge->why, WORDS, "the model has other classes than its metadata says");
        done = false;
    }
    for (size_t i = 0; done && i < count; i++)
        edge->probabilities[i] += ((float *)values)[i];
    edge->ort->ReleaseTensorTypeAndShapeInfo(type);
    edge->ort->ReleaseValue(found);
    edge->ort->ReleaseValue(waveform);
    edge->ort->ReleaseMemoryInfo(place);
    return done;
}

// Find edge->label and edge->probabilities, which are the mean over the windows that are not silent;
// if they cannot be found, edge->why says why. The sound must have the model's rate.
bool edge_classify(struct edge *edge, const struct sound *sound)
{
    size_t classes = json_array_size(edge->classes), windows = 0, size = (size_t)edge->window;
    size_t last = sound->count > size ? sound->count - size : 0, start = 0;
    float *window = malloc(size * sizeof *window);
    bool done = window != NULL, ended = false;
    memset(edge->probabilities, 0, classes * sizeof *edge->probabilities);
    while (done && !ended) {
        ended = start >= last;
        start = ended ? last : start; // the last one ends with the recording
        size_t there = sound->count - start < size ? sound->count - start : size;
        const float *samples = sound->samples + start;
        if (loudness(samples, there, (size_t)edge->rate / 100) >= edge->silence) {
            for (size_t i = 0; i < size; i++)
                window[i] = i < there ? samples[i] : edge->repeat ? samples[i % there] : 0;
            done = run(edge, window);
            windows++;
        }
        start += (size_t)edge->hop;
    }
    free(window);
    if (done && !windows) {
        snprintf(edge->why, WORDS, "nothing in it is louder than %g dB", edge->silence);
        done = false;
    }
    edge->label = 0;
    for (size_t i = 0; done && i < classes; i++) {
        edge->probabilities[i] /= (double)windows;
        if (edge->probabilities[i] > edge->probabilities[edge->label])
            edge->label = (int64_t)i;
    }
    if (done && edge->probabilities[edge->label] < edge->threshold)
        edge->label = -1;
    return done;
}

static bool show(struct edge *edge, const char *path)
{
    struct sound sound;
    bool readable = sound_read(&sound, path) && sound_resample(&sound, (uint32_t)edge->rate);
    bool done = readable && edge_classify(edge, &sound);
    free(sound.samples);
    if (!done) {
        fprintf(stderr, "%s cannot be %s: %s\n", path, readable ? "classified" : "read",
                readable ? edge->why : sound.why);
        return false;
    }
    double most = 0;
    for (size_t i = 0; i < json_array_size(edge->classes); i++)
        most = fmax(most, edge->probabilities[i]);
    const char *name = json_string_value(json_array_get(edge->classes, (size_t)edge->label));
    printf("%s  %s  %.3f\n", path, edge->label < 0 ? "unknown" : name, most);
    return true;
}

int main(int count, char **arguments)
{
    if (count < 3) {
        fprintf(stderr, "usage: classify_sound edge.onnx recording.wav [recording.wav ...]\n");
        return 1;
    }
    struct edge edge;
    bool usable = edge_open(&edge, arguments[1]), done = usable;
    if (!usable)
        fprintf(stderr, "%s cannot be used: %s\n", arguments[1], edge.why);
    for (int i = 2; usable && i < count; i++)
        done = show(&edge, arguments[i]) && done;
    edge_close(&edge);
    return done ? 0 : 1;
}
