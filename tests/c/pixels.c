// pixels FILE ...: height, width and pixels of each to stdout, "-" and why where it cannot be read.
#define main classify_photo
#include "classify_photo.c"
#undef main

int main(int count, char **arguments)
{
    for (int i = 1; i < count; i++) {
        struct photo photo;
        if (!photo_read(&photo, arguments[i])) {
            printf("- %s\n", photo.why);
            continue;
        }
        printf("%zu %zu\n", photo.height, photo.width);
        fwrite(photo.pixels, 3, photo.height * photo.width, stdout);
        free(photo.pixels);
    }
    return 0;
}
