/* A library for LD_PRELOAD: one call that writes below a folder fails, or kills its process.

   Environment: FAULT_FOLDER, without which nothing happens. FAULT_LOG, a file outside of it, takes a record of
   RECORD bytes for each call in any process; its size is the count. FAULT_AT, the number of the call, from 1.
   FAULT_ERROR, the errno with which it fails; 0 kills the process, in a write after half of the bytes.
   FAULT_LAST, the number of the last call that fails; defaults to FAULT_AT. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { RECORD = 256, WRITES = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC };

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

/* Count a call. Returns 0, or the errno with which it fails; -1 where the process is to be killed. */
static int fault(const char *call, const char *path) {
    const char *folder = getenv("FAULT_FOLDER");
    if (!folder || strncmp(path, folder, strlen(folder)))
        return 0;
    char record[RECORD + 1];
    int before = errno;
    snprintf(record, sizeof record, "%-10s %-*.*s\n", call, RECORD - 12, RECORD - 12, path + strlen(folder));
    int log = syscall(SYS_openat, AT_FDCWD, getenv("FAULT_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0666);
    syscall(SYS_write, log, record, RECORD);
    long count = lseek(log, 0, SEEK_CUR) / RECORD; /* the end of this record, whoever appends meanwhile */
    close(log);
    errno = before;
    long at = number("FAULT_AT", 0);
    if (count < at || count > number("FAULT_LAST", at))
        return 0;
    int error = number("FAULT_ERROR", 0);
    return error ? error : -1;
}

static int fault_of(const char *call, int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    int before = errno;
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    path[length < 0 ? 0 : length] = 0;
    return fault(call, path);
}

/* Fail, or kill the process after an act. */
#define FAIL_IF(error, result, act) \
    switch (error) {                \
    case 0:                         \
        break;                      \
    case -1:                        \
        act;                        \
        kill(getpid(), SIGKILL);    \
    default:                        \
        errno = error;              \
        return result;              \
    }

ssize_t write(int file, const void *bytes, size_t size) {
    int error = fault_of("write", file);
    FAIL_IF(error, -1, syscall(SYS_write, file, bytes, size / 2))
    return REAL(write)(file, bytes, size);
}

ssize_t pwrite(int file, const void *bytes, size_t size, off_t offset) {
    int error = fault_of("pwrite", file);
    FAIL_IF(error, -1, syscall(SYS_pwrite64, file, bytes, size / 2, offset))
    return REAL(pwrite)(file, bytes, size, offset);
}

ssize_t pwrite64(int file, const void *bytes, size_t size, off_t offset) {
    return pwrite(file, bytes, size, offset);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    int error = fault_of("writev", file);
    FAIL_IF(error, -1, syscall(SYS_writev, file, parts, count / 2))
    return REAL(writev)(file, parts, count);
}

int fsync(int file) {
    int error = fault_of("fsync", file);
    FAIL_IF(error, -1, )
    return REAL(fsync)(file);
}

int fdatasync(int file) {
    int error = fault_of("fdatasync", file);
    FAIL_IF(error, -1, )
    return REAL(fdatasync)(file);
}

int rename(const char *from, const char *to) {
    int error = fault("rename", to);
    FAIL_IF(error, -1, )
    return REAL(rename)(from, to);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    int error = fault("renameat", to);
    FAIL_IF(error, -1, )
    return REAL(renameat)(from_folder, from, to_folder, to);
}

int unlink(const char *path) {
    int error = access(path, F_OK) ? 0 : fault("unlink", path);
    if (error == ENOSPC) /* a full disk lets files go */
        error = 0;
    FAIL_IF(error, -1, )
    return REAL(unlink)(path);
}

int mkdir(const char *path, mode_t mode) {
    int error = access(path, F_OK) ? fault("mkdir", path) : 0;
    FAIL_IF(error, -1, )
    return REAL(mkdir)(path, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    int error = flags & WRITES ? fault("open", path) : 0;
    FAIL_IF(error, -1, )
    return REAL(openat)(folder, path, flags, mode);
}

#define OPEN(name)                                                             \
    int name(const char *path, int flags, ...) {                               \
        va_list rest;                                                          \
        va_start(rest, flags);                                                 \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                          \
        return openat(AT_FDCWD, path, flags, mode);                            \
    }
OPEN(open)
OPEN(open64)

#define FOPEN(name)                                             \
    FILE *name(const char *path, const char *mode) {            \
        int error = strpbrk(mode, "wa+") ? fault("fopen", path) : 0; \
        FAIL_IF(error, NULL, )                                  \
        return REAL(name)(path, mode);                          \
    }
FOPEN(fopen)
FOPEN(fopen64)
