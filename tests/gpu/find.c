// Opens LIBRARY at the first call of one of its functions; see build.sh, which puts the names before this.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern void *TABLE[] __attribute__((visibility("hidden")));
static void *library;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int none(void) { return CODE; }
static const char *none_text(void) { return LIBRARY ": library not found"; }

// From the folders of HIFT_CUDA_LIB_DIR, the loader's own, and the usual one.
static void *open_file(const char *name) {
    char path[4096];
    for (const char *folder = getenv("HIFT_CUDA_LIB_DIR"); folder && *folder;) {
        const char *end = strchr(folder, ':');
        size_t n = end ? (size_t)(end - folder) : strlen(folder);
        if (n && n < 3900) {
            snprintf(path, sizeof path, "%.*s/%s", (int)n, folder, name);
            void *file = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
            if (file) return file;
        }
        folder = end ? end + 1 : folder + n;
    }
    void *file = dlopen(name, RTLD_NOW | RTLD_GLOBAL);
    if (file) return file;
    snprintf(path, sizeof path, "/usr/local/cuda/lib64/%s", name);
    return dlopen(path, RTLD_NOW | RTLD_GLOBAL);
}

static void look(void) {
    for (int i = 0; files[i]; i++) {
        if (files[i][0] == '+') open_file(files[i] + 1);
        else if (!library) library = open_file(files[i]);
    }
}

__attribute__((visibility("hidden"))) void *FIND(long i) {
    pthread_once(&once, look);
    void *function = library ? dlsym(library, functions[i]) : 0;
    const char *name = functions[i];
    // Functions that give a text must not give a number; the driver writes its texts elsewhere.
    int gives_text = strcmp(LIBRARY, "cuda") && (strstr(name, "String") || strstr(name, "StatusName"));
    if (!function) return gives_text ? (void *)none_text : (void *)none;
    return TABLE[i] = function;
}
