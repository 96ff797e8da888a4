// Classify photographs with an edge model in C: ONNX Runtime (1.17 or newer), libjpeg, libpng,
// libexif and jansson are all it needs.
//
//     apt-get install gcc pkg-config libonnxruntime-dev
//     apt-get install libjpeg-dev libpng-dev libexif-dev libjansson-dev
//     libraries="libonnxruntime libjpeg libpng libexif jansson"
//     gcc -O2 classify_photo.c -o classify_photo $(pkg-config --cflags --libs $libraries)
//     ./classify_photo edge.onnx photo.jpg [photo.jpg ...]
//
// Debian has libonnxruntime-dev from 13 on; elsewhere take the archive that ONNX Runtime releases,
// and say where its header (-I) and library (-L, -lonnxruntime) are.
//
// The model should take photographs of any size (`python -m export classifier ... --any-size`);
// another one gets those of exactly its own size, for nothing is resized here. Prints a line for
// each photograph: its name, the class, and the probability. JPEG and PNG are read, upright by
// EXIF, on white; colour profiles are passed over. Copy this file into your own program: edge_open,
// edge_classify, edge_close and photo_read are what it needs.

#include <errno.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <jpeglib.h>
#include <jerror.h> // after jpeglib.h
#include <libexif/exif-data.h>
#include <onnxruntime_c_api.h>
#include <png.h>

#define ORT_VERSION 17        // of ONNX Runtime 1.17; newer ones answer to it as well
#define MOST_PIXELS 200000000 // of a photograph
#define WORDS 512

// sRGB, row by row from the top, three bytes a pixel. free(pixels) when done.
struct photo {
    unsigned char *pixels;
    size_t width, height;
    int orientation; // of EXIF: 1 is upright
    char why[WORDS]; // it cannot be read
};

struct edge {
    const OrtApi *ort;
    OrtEnv *env;
    OrtSession *session;
    json_t *classes;       // an array of strings
    int64_t height, width; // below 1 where the model takes any
    int64_t label;         // of the last photograph: index of its class, -1 for "unknown"
    float *probabilities;  // of the last photograph, one for each class
    char why[WORDS];       // it cannot be used, or a photograph not be classified
};

static bool make_room(struct photo *photo, size_t width, size_t height, size_t channels)
{
    photo->width = width, photo->height = height;
    if (height && width <= MOST_PIXELS / height)
        photo->pixels = malloc(width * height * channels);
    if (!photo->pixels)
        snprintf(photo->why, WORDS, "it is too large: %zu x %zu pixels", width, height);
    return photo->pixels != NULL;
}

// Take the orientation from a block that begins with "Exif\0\0".
static void read_exif(struct photo *photo, const unsigned char *block, unsigned length)
{
    ExifData *exif = exif_data_new_from_data(block, length);
    ExifContent *content = exif ? exif->ifd[EXIF_IFD_0] : NULL;
    ExifEntry *entry = exif_content_get_entry(content, EXIF_TAG_ORIENTATION);
    if (entry && entry->format == EXIF_FORMAT_SHORT && entry->size >= 2)
        photo->orientation = exif_get_short(entry->data, exif_data_get_byte_order(exif));
    exif_data_unref(exif);
}

static bool turn_upright(struct photo *photo)
{
    int turned = photo->orientation;
    if (turned < 2 || turned > 8)
        return true;
    bool aside = turned >= 5; // rows become columns
    bool from_below = turned == 3 || turned == 4 || turned == 6 || turned == 7;
    bool from_right = turned == 2 || turned == 3 || turned == 7 || turned == 8;
    struct photo old = *photo;
    photo->pixels = NULL;
    if (make_room(photo, aside ? old.height : old.width, aside ? old.width : old.height, 3)) {
        unsigned char *to = photo->pixels;
        for (size_t y = 0; y < photo->height; y++)
            for (size_t x = 0; x < photo->width; x++, to += 3) {
                size_t row = aside ? x : y, column = aside ? y : x;
                row = from_below ? old.height - 1 - row : row;
                column = from_right ? old.width - 1 - column : column;
                memcpy(to, old.pixels + 3 * (row * old.width + column), 3);
            }
    }
    free(old.pixels);
    return photo->pixels != NULL;
}

struct jpeg_trouble {
    struct jpeg_error_mgr base;
    jmp_buf back;
    struct photo *photo;
};

static void jpeg_failed(j_common_ptr jpeg)
{
    struct jpeg_trouble *trouble = (struct jpeg_trouble *)jpeg->err;
    char text[JMSG_LENGTH_MAX];
    trouble->base.format_message(jpeg, text);
    snprintf(trouble->photo->why, WORDS, "%s", text);
    longjmp(trouble->back, 1);
}

static void jpeg_warned(j_common_ptr jpeg, int level)
{
    int code = jpeg->err->msg_code;
    bool ended = code == JWRN_MUST_RESYNC && jpeg->err->msg_parm.i[0] == JPEG_EOI;
    if (level < 0 && (ended || code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER))
        jpeg_failed(jpeg); // the rest would be grey
}

static bool decode_jpeg(struct jpeg_decompress_struct *jpeg, struct photo *photo)
{
    jpeg_save_markers(jpeg, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(jpeg, TRUE);
    for (jpeg_saved_marker_ptr block = jpeg->marker_list; block; block = block->next)
        if (block->data_length > 6 && !memcmp(block->data, "Exif\0", 6))
            read_exif(photo, block->data, block->data_length);
    bool inks = jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK;
    jpeg->out_color_space = inks ? JCS_CMYK : JCS_RGB;
    if (!make_room(photo, jpeg->image_width, jpeg->image_height, inks ? 4 : 3))
        return false;
    jpeg_start_decompress(jpeg);
    while (jpeg->output_scanline < jpeg->output_height) {
        JSAMPROW row = photo->pixels + jpeg->output_scanline * photo->width * (inks ? 4 : 3);
        jpeg_read_scanlines(jpeg, &row, 1);
    }
    jpeg_finish_decompress(jpeg);
    unsigned char *from = photo->pixels, *to = photo->pixels;
    int none = jpeg->saw_Adobe_marker ? 0 : 255; // Adobe's files hold inks inverted
    for (size_t left = inks ? photo->width * photo->height : 0; left; left--, from += 4) {
        int light = abs(none - from[3]);
        for (int i = 0; i < 3; i++)
            *to++ = (unsigned char)((abs(none - from[i]) * light + 127) / 255);
    }
    return true;
}

static bool read_jpeg(FILE *file, struct photo *photo)
{
    struct jpeg_trouble trouble = {.photo = photo};
    struct jpeg_decompress_struct jpeg = {.err = jpeg_std_error(&trouble.base)};
    trouble.base.error_exit = jpeg_failed;
    trouble.base.emit_message = jpeg_warned;
    if (setjmp(trouble.back)) {
        jpeg_destroy_decompress(&jpeg);
        return false;
    }
    jpeg_create_decompress(&jpeg);
    jpeg_stdio_src(&jpeg, file);
    bool done = decode_jpeg(&jpeg, photo);
    jpeg_destroy_decompress(&jpeg);
    return done;
}

static void png_failed(png_structp png, png_const_charp message)
{
    snprintf(png_get_error_ptr(png), WORDS, "%s", message);
    png_longjmp(png, 1);
}

static void png_warned(png_structp png, png_const_charp message)
{
    (void)png, (void)message; // the pixels are whole
}

static bool decode_png(png_structp png, png_infop info, FILE *file, struct photo *photo)
{
    if (setjmp(png_jmpbuf(png)))
        return false;
    png_init_io(png, file);
    png_read_info(png, info);
    if (!make_room(photo, png_get_image_width(png, info), png_get_image_height(png, info), 4))
        return false;
    png_set_expand(png);
    png_set_strip_16(png);
    png_set_gray_to_rgb(png);
    png_set_add_alpha(png, 255, PNG_FILLER_AFTER);
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    for (int pass = 0; pass < passes; pass++)
        for (size_t y = 0; y < photo->height; y++)
            png_read_row(png, photo->pixels + 4 * y * photo->width, NULL);
    png_read_end(png, info);
    unsigned char *from = photo->pixels, *to = photo->pixels;
    for (size_t left = photo->width * photo->height; left; left--, from += 4) {
        int alpha = from[3], white = 255 * (255 - alpha);
        for (int i = 0; i < 3; i++)
            *to++ = (unsigned char)((from[i] * alpha + white + 127) / 255);
    }
    png_uint_32 length = 0;
    png_bytep exif = NULL;
    unsigned char block[0xffff] = "Exif\0";
    if (png_get_eXIf_1(png, info, &length, &exif) && length <= sizeof block - 6) {
        memcpy(block + 6, exif, length);
        read_exif(photo, block, 6 + length);
    }
    return true;
}

static bool read_png(FILE *file, struct photo *photo)
{
    png_structp png =
        png_create_read_struct(PNG_LIBPNG_VER_STRING, photo->why, png_failed, png_warned);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    bool done = info && decode_png(png, info, file, photo);
    if (!done && feof(file)) // libpng's words are "Read Error"
        snprintf(photo->why, WORDS, "the file ends too early");
    png_destroy_read_struct(&png, &info, NULL);
    return done;
}

// Read a photograph upright, on white; if it cannot be, photo->why says why and nothing is kept.
bool photo_read(struct photo *photo, const char *path)
{
    memset(photo, 0, sizeof *photo);
    unsigned char start[8] = "";
    bool done = false;
    FILE *file = fopen(path, "rb");
    if (!file || (!fread(start, 1, sizeof start, file) && ferror(file)) ||
        fseek(file, 0, SEEK_SET))
        snprintf(photo->why, WORDS, "%s", strerror(errno));
    else if (!png_sig_cmp(start, 0, sizeof start))
        done = read_png(file, photo);
    else if (!memcmp(start, "\xff\xd8\xff", 3))
        done = read_jpeg(file, photo);
    else
        snprintf(photo->why, WORDS, "it is neither a JPEG nor a PNG file");
    if (file)
        fclose(file);
    if (done && turn_upright(photo))
        return true;
    free(photo->pixels);
    photo->pixels = NULL;
    return false;
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

static bool read_metadata(struct edge *edge)
{
    OrtAllocator *memory = NULL;
    OrtModelMetadata *about = NULL;
    OrtTypeInfo *type = NULL;
    const OrtTensorTypeAndShapeInfo *tensor = NULL;
    char *kind = NULL, *classes = NULL;
    int64_t shape[4] = {0};
    bool done =
        ORT(GetAllocatorWithDefaultOptions(&memory)) &&
        ORT(SessionGetModelMetadata(edge->session, &about)) &&
        ORT(ModelMetadataLookupCustomMetadataMap(about, memory, "headstart.kind", &kind)) &&
        ORT(ModelMetadataLookupCustomMetadataMap(about, memory, "headstart.classes", &classes)) &&
        ORT(SessionGetInputTypeInfo(edge->session, 0, &type)) &&
        ORT(CastTypeInfoToTensorInfo(type, &tensor)) && ORT(GetDimensions(tensor, shape, 4));
    edge->height = shape[1];
    edge->width = shape[2];
    if (done && (!kind || strcmp(kind, "classifier"))) {
        snprintf(edge->why, WORDS, "it is not an edge model: python -m export classifier writes one");
        done = false;
    } else if (done) {
        edge->classes = classes ? json_loads(classes, 0, NULL) : NULL;
        size_t count = json_array_size(edge->classes); // 0 as well where it is no array
        edge->probabilities = calloc(count, sizeof *edge->probabilities);
        done = count && edge->probabilities;
        for (size_t i = 0; i < count; i++)
            done = done && json_is_string(json_array_get(edge->classes, i));
        if (!done)
            snprintf(edge->why, WORDS, "its metadata is damaged: export the classifier again");
    }
    if (kind)
        memory->Free(memory, kind);
    if (classes)
        memory->Free(memory, classes);
    edge->ort->ReleaseTypeInfo(type);
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

// Find edge->label and edge->probabilities; if they cannot be, edge->why says why.
bool edge_classify(struct edge *edge, const struct photo *photo)
{
    const char *inputs[] = {"image"}, *outputs[] = {"label", "probabilities"};
    const int64_t shape[] = {1, (int64_t)photo->height, (int64_t)photo->width, 3};
    if (edge->height > 0 && (edge->height != shape[1] || edge->width != shape[2])) {
        snprintf(edge->why, WORDS,
                 "it is %zu x %zu pixels large, and the model takes only %lld x %lld: export the "
                 "classifier with --any-size",
                 photo->width, photo->height, (long long)edge->width, (long long)edge->height);
        return false;
    }
    OrtMemoryInfo *place = NULL;
    OrtValue *image = NULL, *found[2] = {NULL, NULL};
    OrtTensorTypeAndShapeInfo *type = NULL;
    void *labels = NULL, *values = NULL;
    size_t count = 0, bytes = 3 * photo->width * photo->height;
    bool done = ORT(CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &place)) &&
                ORT(CreateTensorWithDataAsOrtValue(place, photo->pixels, bytes, shape, 4,
                                                   ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, &image)) &&
                ORT(Run(edge->session, NULL, inputs, (const OrtValue *const *)&image, 1, outputs, 2,
                        found)) &&
                ORT(GetTensorTypeAndShape(found[1], &type)) &&
                ORT(GetTensorShapeElementCount(type, &count)) &&
                ORT(GetTensorMutableData(found[0], &labels)) &&
                ORT(GetTensorMutableData(found[1], &values));
    if (done && (count != json_array_size(edge->classes) || *(int64_t *)labels >= (int64_t)count)) {
        snprintf(edge->why, WORDS, "the model has other classes than its metadata says");
        done = false;
    } else if (done) {
        edge->label = *(int64_t *)labels;
        memcpy(edge->probabilities, values, count * sizeof *edge->probabilities);
    }
    edge->ort->ReleaseTensorTypeAndShapeInfo(type);
    edge->ort->ReleaseValue(found[0]);
    edge->ort->ReleaseValue(found[1]);
    edge->ort->ReleaseValue(image);
    edge->ort->ReleaseMemoryInfo(place);
    return done;
}

static bool show(struct edge *edge, const char *path)
{
    struct photo photo;
    bool readable = photo_read(&photo, path), done = readable && edge_classify(edge, &photo);
    free(photo.pixels);
    if (!done) {
        fprintf(stderr, "%s cannot be %s: %s\n", path, readable ? "classified" : "read",
                readable ? edge->why : photo.why);
        return false;
    }
    float most = 0;
    for (size_t i = 0; i < json_array_size(edge->classes); i++)
        most = edge->probabilities[i] > most ? edge->probabilities[i] : most;
    const char *name = json_string_value(json_array_get(edge->classes, (size_t)edge->label));
    printf("%s  %s  %.3f\n", path, edge->label < 0 ? "unknown" : name, most);
    return true;
}

int main(int count, char **arguments)
{
    if (count < 3) {
        fprintf(stderr, "usage: classify_photo edge.onnx photo.jpg [photo.jpg ...]\n");
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
