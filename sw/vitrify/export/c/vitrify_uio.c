/* Transport on Linux.  See vitrify_uio.h. */
#define _DEFAULT_SOURCE
#include "vitrify_uio.h"

#include "vitrify_regs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MS 5
#define POLL_NS 500000L
#define CLOSED (-1)

static uint32_t milliseconds(void *context)
{
    struct timespec at;

    (void)context;
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    return ((uint32_t)at.tv_sec * 1000u) + ((uint32_t)at.tv_nsec / 1000000u);
}

static int32_t wait(void *context)
{
    vitrify_uio *uio = (vitrify_uio *)context;
    const struct timespec pause = {0, POLL_NS};
    const uint32_t once = 1u;
    struct pollfd asked;
    uint32_t count;
    int32_t code = VITRIFY_OK;

    /* Let the interrupt through once.  EIO: the device tree names none. */
    if ((uio->interrupt != 0) && (write(uio->registers, &once, sizeof(once)) < 0)) {
        uio->interrupt = 0;
        code = (errno == EIO) ? VITRIFY_OK : VITRIFY_LINK;
    }
    if (code == VITRIFY_OK) {
        if (uio->interrupt == 0) {
            (void)nanosleep(&pause, NULL);
        } else {
            asked.fd = uio->registers;
            asked.events = POLLIN;
            asked.revents = 0;
            if ((poll(&asked, 1u, WAIT_MS) > 0) &&
                (read(uio->registers, &count, sizeof(count)) < 0)) {
                code = VITRIFY_LINK;
            }
        }
    }
    return code;
}

/* The number in a file of the buffer's description; 0 if there is none. */
static uint64_t number(const char *about, const char *name)
{
    char text[256];
    FILE *file;
    uint64_t value = 0u;

    if (snprintf(text, sizeof(text), "%s/%s", about, name) < (int)sizeof(text)) {
        file = fopen(text, "r");
        if (file != NULL) {
            if (fgets(text, (int)sizeof(text), file) != NULL) {
                value = strtoull(text, NULL, 0);
            }
            (void)fclose(file);
        }
    }
    return value;
}

static void *map(int file, size_t size)
{
    return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
}

int32_t vitrify_uio_open(vitrify_uio *uio, const char *device, const char *buffer,
                         const char *about)
{
    const uint64_t size = number(about, "size");
    const uint64_t base = number(about, "phys_addr");
    void *registers = MAP_FAILED;
    void *memory = MAP_FAILED;
    int32_t code = VITRIFY_LINK;

    /* O_SYNC: neither side keeps the buffer in a cache. */
    uio->registers = open(device, O_RDWR | O_SYNC);
    uio->memory = open(buffer, O_RDWR | O_SYNC);
    uio->interrupt = 1;
    if ((uio->registers >= 0) && (uio->memory >= 0) && (size > 0u) && (size <= UINT32_MAX)) {
        if (flock(uio->registers, LOCK_EX | LOCK_NB) != 0) {
            code = (errno == EWOULDBLOCK) ? VITRIFY_BUSY : VITRIFY_LINK;
        } else {
            registers = map(uio->registers, VITRIFY_REGISTER_BYTES);
            memory = map(uio->memory, (size_t)size);
        }
    }
    uio->mapped.registers = (registers != MAP_FAILED) ? (volatile uint32_t *)registers : NULL;
    uio->mapped.memory = (memory != MAP_FAILED) ? (volatile uint32_t *)memory : NULL;
    uio->mapped.context = uio;
    uio->mapped.milliseconds = milliseconds;
    uio->mapped.wait = wait;
    uio->mapped.clean = NULL;
    uio->mapped.invalidate = NULL;
    vitrify_mapped_transport(&uio->mapped, base, (uint32_t)size, &uio->transport);
    if ((registers != MAP_FAILED) && (memory != MAP_FAILED)) {
        code = VITRIFY_OK;
    } else {
        vitrify_uio_close(uio);
    }
    return code;
}

void vitrify_uio_close(vitrify_uio *uio)
{
    const int why = errno;

    if (uio->mapped.registers != NULL) {
        (void)munmap((void *)(uintptr_t)uio->mapped.registers, VITRIFY_REGISTER_BYTES);
    }
    if (uio->mapped.memory != NULL) {
        (void)munmap((void *)(uintptr_t)uio->mapped.memory, uio->transport.memory_size);
    }
    if (uio->registers != CLOSED) {
        (void)close(uio->registers);
    }
    if (uio->memory != CLOSED) {
        (void)close(uio->memory);
    }
    uio->mapped.registers = NULL;
    uio->mapped.memory = NULL;
    uio->registers = CLOSED;
    uio->memory = CLOSED;
    errno = why;
}
