/* Moves the wall clock that one process sees, while it runs: for LD_PRELOAD. The seconds to add, which may be negative, are the
 * eight bytes of the file that TEST_CLOCK names. The monotonic clock goes on as it does, as when somebody sets the system's clock.
 *
 * Rust's SystemTime asks clock_gettime and nothing else. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int (*asked)(clockid_t, struct timespec *);
static const volatile int64_t *offset;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *bytes = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    /* A test whose clock does not move must not pass. */
    if (bytes == MAP_FAILED) abort();
    close(file);
    offset = bytes;
    asked = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (!asked) abort();
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    /* The loader's own start may ask before we begin. */
    if (!asked) asked = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = asked(clock, now);
    if (!failed && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset;
    return failed;
}
