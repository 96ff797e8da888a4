// answers edge.onnx < list of files: label and probabilities of each, a line.
#define main classify_photo
#include "classify_photo.c"
#undef main

int main(int count, char **arguments)
{
    struct edge edge;
    char path[4096];
    bool done = count == 2 && edge_open(&edge, arguments[1]);
    while (done && fgets(path, sizeof path, stdin)) {
        struct photo photo;
        path[strcspn(path, "\n")] = '\0';
        done = photo_read(&photo, path);
        if (!done)
            fprintf(stderr, "%s: %s\n", path, photo.why);
        done = done && edge_classify(&edge, &photo);
        free(photo.pixels);
        printf("%lld", done ? (long long)edge.label : -2);
        for (size_t i = 0; i < json_array_size(edge.classes); i++)
            printf(" %.9g", edge.probabilities[i]);
        printf("\n");
    }
    edge_close(&edge);
    return done ? 0 : 1;
}
