// File operations that fail when they are told to. Loaded by LD_PRELOAD into a process under test,
// it stands before libc for all that changes files, or reads them, whoever calls: Python, Rust,
// Arrow, torch. fault_runs.py arms it and says what must hold afterwards.
//
// Operations are counted where they touch a path below the folder that is watched; the chosen one
// fails with an error number, or the process is killed just before it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

// As in fault_runs.py.
enum way { COUNT, ONCE, FROM_HERE, FULL, KILL, TORN };
enum kind { READS = 1, GROWS = 2, CHANGES = 4, SHRINKS = 8, WRITES = 16 | GROWS };

static char watched[4096];
static enum way way;
static int kinds, number;
static long wanted, seen;

// Watch `folder`, counting anew; "" watches nothing.
void faults_arm(const char* folder, int which_kinds, int which_way, long at, int error) {
    watched[0] = 0;
    kinds = which_kinds, way = which_way, wanted = at, number = error, seen = 0;
    snprintf(watched, sizeof watched, "%s", folder);
}

long faults_seen(void) { return seen; }

static int below(const char* path) {
    const size_t length = strlen(watched);
    return length && !strncmp(path, watched, length) && (path[length] == '/' || !path[length]);
}

static int watches_handle(int handle) {
    char link[64], path[4096];
    if (!watched[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    const ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

static int watches(int folder, const char* path) {
    if (!watched[0] || !path) return 0;
    return path[0] == '/' || folder == AT_FDCWD ? below(path) : watches_handle(folder);
}

// Whether the operation that begins now is to fail; 2 where a write is torn.
static int fails(enum kind kind) {
    if (!(kinds & kind)) return 0;
    ++seen;
    switch (way) {
        case ONCE:
            return seen == wanted;
        case FROM_HERE:
            return seen >= wanted;
        case FULL:  // a full disk lets things go
            return seen >= wanted && (kind & GROWS);
        case KILL:
            if (seen == wanted) kill(getpid(), SIGKILL);
            return 0;
        case TORN:
            return seen == wanted ? 2 : 0;
        default:
            return 0;
    }
}

#define REAL(name)                                                \
    static __typeof__(&name) real;                                \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define REFUSE return errno = number, -1

static enum kind opening(int flags) {
    if (flags & (O_CREAT | O_TRUNC)) return GROWS;
    return flags & (O_WRONLY | O_RDWR) ? CHANGES : READS;
}

#define OPEN(name)                                                            \
    int name(const char* path, int flags, ...) {                              \
        REAL(name);                                                           \
        va_list more;                                                         \
        va_start(more, flags);                                                \
        const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                                         \
        if (watches(AT_FDCWD, path) && fails(opening(flags))) REFUSE;         \
        return real(path, flags, mode);                                       \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                          \
    int name(int folder, const char* path, int flags, ...) {                  \
        REAL(name);                                                           \
        va_list more;                                                         \
        va_start(more, flags);                                                \
        const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                                         \
        if (watches(folder, path) && fails(opening(flags))) REFUSE;           \
        return real(folder, path, flags, mode);                               \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                           \
    FILE* name(const char* path, const char* mode) {                          \
        REAL(name);                                                           \
        if (watches(AT_FDCWD, path) && fails(mode[0] == 'r' ? READS : GROWS)) \
            return errno = number, NULL;                                      \
        return real(path, mode);                                              \
    }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int handle, const void* bytes, size_t count) {
    REAL(write);
    const int failed = watches_handle(handle) ? fails(WRITES) : 0;
    if (failed == 2) {
        real(handle, bytes, count / 2);
        kill(getpid(), SIGKILL);
    }
    if (failed) REFUSE;
    return real(handle, bytes, count);
}

#define ON_HANDLE(kind, type, name, parameters, arguments)    \
    type name parameters {                                    \
        REAL(name);                                           \
        if (watches_handle(handle) && fails(kind)) REFUSE;    \
        return real arguments;                                \
    }
#define ON_PATH(kind, name, folder, parameters, arguments)    \
    int name parameters {                                     \
        REAL(name);                                           \
        if (watches(folder, path) && fails(kind)) REFUSE;     \
        return real arguments;                                \
    }
ON_HANDLE(GROWS, ssize_t, writev, (int handle, const struct iovec* v, int n), (handle, v, n))
ON_HANDLE(GROWS, ssize_t, pwrite, (int handle, const void* b, size_t n, off_t at), (handle, b, n, at))
ON_HANDLE(GROWS, ssize_t, pwrite64, (int handle, const void* b, size_t n, off64_t at), (handle, b, n, at))
ON_HANDLE(GROWS, ssize_t, sendfile, (int handle, int from, off_t* at, size_t n), (handle, from, at, n))
ON_HANDLE(GROWS, ssize_t, sendfile64, (int handle, int from, off64_t* at, size_t n), (handle, from, at, n))
ON_HANDLE(GROWS, int, ftruncate, (int handle, off_t size), (handle, size))
ON_HANDLE(GROWS, int, ftruncate64, (int handle, off64_t size), (handle, size))
ON_HANDLE(GROWS, int, fsync, (int handle), (handle))
ON_HANDLE(GROWS, int, fdatasync, (int handle), (handle))
ON_HANDLE(CHANGES, int, fchmod, (int handle, mode_t mode), (handle, mode))
ON_HANDLE(READS, ssize_t, read, (int handle, void* b, size_t n), (handle, b, n))
ON_HANDLE(READS, ssize_t, pread, (int handle, void* b, size_t n, off_t at), (handle, b, n, at))
ON_HANDLE(READS, ssize_t, pread64, (int handle, void* b, size_t n, off64_t at), (handle, b, n, at))
ON_PATH(GROWS, mkdir, AT_FDCWD, (const char* path, mode_t mode), (path, mode))
ON_PATH(GROWS, mkdirat, folder, (int folder, const char* path, mode_t mode), (folder, path, mode))
ON_PATH(GROWS, symlink, AT_FDCWD, (const char* to, const char* path), (to, path))
ON_PATH(GROWS, link, AT_FDCWD, (const char* from, const char* path), (from, path))
ON_PATH(CHANGES, chmod, AT_FDCWD, (const char* path, mode_t mode), (path, mode))
ON_PATH(CHANGES, utimensat, folder, (int folder, const char* path, const struct timespec t[2], int f), (folder, path, t, f))
ON_PATH(CHANGES, rename, AT_FDCWD, (const char* path, const char* to), (path, to))
ON_PATH(CHANGES, renameat, folder, (int folder, const char* path, int f, const char* to), (folder, path, f, to))
ON_PATH(CHANGES, renameat2, folder, (int folder, const char* path, int f, const char* to, unsigned flags), (folder, path, f, to, flags))
ON_PATH(SHRINKS, unlink, AT_FDCWD, (const char* path), (path))
ON_PATH(SHRINKS, unlinkat, folder, (int folder, const char* path, int flags), (folder, path, flags))
ON_PATH(SHRINKS, rmdir, AT_FDCWD, (const char* path), (path))
