/* Makes system calls on some files fail with EIO, as a broken disk does. For LD_PRELOAD.
 *
 * A call on a file whose path begins with IO_ERRORS_PREFIX fails while a file named IO_ERRORS_TRIGGER-<call> exists.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(const char *call, int descriptor) {
    const char *prefix = getenv("IO_ERRORS_PREFIX"), *trigger = getenv("IO_ERRORS_TRIGGER");
    char name[PATH_MAX], path[PATH_MAX];
    snprintf(name, sizeof name, "%s-%s", trigger ? trigger : "", call);
    if (!prefix || !trigger || access(name, F_OK)) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
    ssize_t size = readlink(name, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    if (strncmp(path, prefix, strlen(prefix))) return 0;
    errno = EIO;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fdatasync(int descriptor) { return fails("sync", descriptor) ? -1 : REAL(fdatasync)(descriptor); }

int fsync(int descriptor) { return fails("sync", descriptor) ? -1 : REAL(fsync)(descriptor); }

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
    return fails("write", descriptor) ? -1 : REAL(pwrite64)(descriptor, data, size, offset);
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    return fails("write", descriptor) ? -1 : REAL(pwrite)(descriptor, data, size, offset);
}

ssize_t pread64(int descriptor, void *data, size_t size, off64_t offset) {
    return fails("read", descriptor) ? -1 : REAL(pread64)(descriptor, data, size, offset);
}

ssize_t pread(int descriptor, void *data, size_t size, off_t offset) {
    return fails("read", descriptor) ? -1 : REAL(pread)(descriptor, data, size, offset);
}
