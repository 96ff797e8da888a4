// sounds edge.onnx < list of files: label and probabilities of each recording, a line.
#define main classify_sound
#include "classify_sound.c"
#undef main

int main(int count, char **arguments)
{
    struct edge edge;
    char path[4096];
    bool done = count == 2 && edge_open(&edge, arguments[1]);
    if (!done)
        fprintf(stderr, "%s\n", count == 2 ? edge.why : "usage: sounds edge.onnx");
    while (done && fgets(path, sizeof path, stdin)) {
        struct sound sound;
        path[strcspn(path, "\n")] = '\0';
        bool read = sound_read(&sound, path) && sound_resample(&sound, (uint32_t)edge.rate);
        bool found = read && edge_classify(&edge, &sound);
        free(sound.samples);
        if (!found) {
            printf("- %s\n", read ? edge.why : sound.why);
            continue;
        }
        printf("%lld", (long long)edge.label);
        for (size_t i = 0; i < json_array_size(edge.classes); i++)
            printf(" %.9g", edge.probabilities[i]);
        printf("\n");
    }
    edge_close(&edge);
    fflush(stdout); // the sanitizer's own end comes before that of the program
    return done ? 0 : 1;
}
