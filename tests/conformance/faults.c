/* Fails or kills at the Nth system call that changes a file below a folder. Preloaded into the daemon.
 *
 * A shared file of four 64-bit numbers controls it: the calls so far, the call at which to act (0: none), what to
 * do, and whether that was done. The test sets it while the daemon runs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { KILL = 1, NO_SPACE = 2, SYNC_FAILS = 3 };
struct control {
    volatile int64_t calls, at, what, done;
};
static struct control *control;
static const char *folder;

/* The environment is that of a program which was forked after the library was loaded, so it is read late. */
static int is_ready(void) {
    static __thread int is_within;
    if (control || is_within) return control != NULL;
    const char *path = getenv("FAULTS_CONTROL");
    folder = getenv("FAULTS_FOLDER");
    if (!path || !folder) return 0;
    is_within = 1; /* `open` below is ours, too */
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) abort();
    void *shared = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED) abort();
    close(fd);
    is_within = 0;
    control = shared;
    return 1;
}

static void die(void) {
    control->done = 1;
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int is_below(const char *path) {
    char absolute[PATH_MAX];
    if (!path || !is_ready()) return 0;
    if (path[0] != '/') {
        if (!getcwd(absolute, sizeof absolute)) return 0;
        size_t length = strlen(absolute);
        snprintf(absolute + length, sizeof absolute - length, "/%s", path);
        path = absolute;
    }
    return strncmp(path, folder, strlen(folder)) == 0;
}

static int fd_is_below(int fd) {
    char link[64], path[PATH_MAX];
    if (!is_ready()) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

/* Counts a call. True if it is the one at which to act; a full disk stays full. */
static int is_due(int64_t what) {
    int64_t call = __sync_add_and_fetch(&control->calls, 1);
    if (!control->at || control->what != what) return 0;
    if (what == NO_SPACE) {
        if (call >= control->at) control->done = 1;
        return call >= control->at;
    }
    return call == control->at;
}

/* A call that writes: 0 if it goes on, else -1 with errno. `torn` bytes are written first if it is the last one. */
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define CHANGES(below)                                                                                                 \
    if (below) {                                                                                                       \
        if (control->what == KILL && is_due(KILL)) die();                                                              \
        if (control->what == NO_SPACE && is_due(NO_SPACE)) {                                                           \
            errno = ENOSPC;                                                                                            \
            return -1;                                                                                                 \
        }                                                                                                              \
        if (control->what == SYNC_FAILS || !control->what) is_due(-1);                                                 \
    }

ssize_t write(int fd, const void *data, size_t length) {
    int below = fd_is_below(fd);
    if (below && control->what == KILL && control->at == control->calls + 1) REAL(write)(fd, data, length / 2);
    CHANGES(below)
    return REAL(write)(fd, data, length);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    int below = fd_is_below(fd);
    if (below && control->what == KILL && control->at == control->calls + 1)
        REAL(pwrite64)(fd, data, length / 2, offset);
    CHANGES(below)
    return REAL(pwrite64)(fd, data, length, offset);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return pwrite64(fd, data, length, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    CHANGES(fd_is_below(fd))
    return REAL(writev)(fd, parts, count);
}

int ftruncate64(int fd, off64_t length) {
    struct stat now;
    int below = fd_is_below(fd);
    /* A full disk lets a file become shorter. */
    if (!(below && control->what == NO_SPACE && fstat(fd, &now) == 0 && length <= now.st_size)) CHANGES(below)
    return REAL(ftruncate64)(fd, length);
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int sync_due(int fd) {
    if (!fd_is_below(fd)) return 0;
    if (control->what == KILL && is_due(KILL)) die();
    if (control->what != SYNC_FAILS) {
        if (control->what != KILL) __sync_add_and_fetch(&control->calls, 1);
        return 0;
    }
    if (!is_due(SYNC_FAILS)) return 0;
    control->done = 1;
    errno = EIO;
    return -1;
}

int fsync(int fd) { return sync_due(fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return sync_due(fd) ? -1 : REAL(fdatasync)(fd); }

int rename(const char *from, const char *to) {
    CHANGES(is_below(to))
    return REAL(rename)(from, to);
}

int renameat(int a, const char *from, int b, const char *to) {
    CHANGES(is_below(to))
    return REAL(renameat)(a, from, b, to);
}

int unlink(const char *path) {
    if (!(control && control->what == NO_SPACE)) CHANGES(is_below(path))
    return REAL(unlink)(path);
}

int link(const char *from, const char *to) {
    CHANGES(is_below(to))
    return REAL(link)(from, to);
}

int mkdir(const char *path, mode_t mode) {
    CHANGES(is_below(path))
    return REAL(mkdir)(path, mode);
}

int open64(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_list rest;
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
    }
    if (flags & O_CREAT && access(path, F_OK) != 0) CHANGES(is_below(path))
    return REAL(open64)(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_list rest;
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
    }
    return open64(path, flags, mode);
}
