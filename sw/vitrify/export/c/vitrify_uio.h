/* Transport on Linux: a UIO device for registers and interrupt, u-dma-buf for the memory. */
#ifndef VITRIFY_UIO_H
#define VITRIFY_UIO_H

#include "vitrify_mapped.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vitrify_uio {
    vitrify_mapped mapped;
    vitrify_transport transport; /* for vitrify_open */
    int registers, memory;       /* open files */
    int interrupt;               /* whether the kernel delivers it */
} vitrify_uio;

/* Open the devices and lock the core: VITRIFY_OK, VITRIFY_BUSY (another process has it), or
   VITRIFY_LINK (errno says more).

   uio: "/dev/uio0"; buffer: "/dev/udmabuf0"; about: "/sys/class/u-dma-buf/udmabuf0", which holds
   the buffer's size and address. */
int32_t vitrify_uio_open(vitrify_uio *uio, const char *device, const char *buffer,
                         const char *about);

void vitrify_uio_close(vitrify_uio *uio);

#ifdef __cplusplus
}
#endif

#endif
