/* Run the exported picture on a board under Linux and compare the result with golden's.

   example [/dev/uio0 [/dev/udmabuf0 [/sys/class/u-dma-buf/udmabuf0]]] */
#include <stdio.h>

#include "@NAME@.h"
#include "vitrify_uio.h"

#define LIMIT_MS 20000u

/* Number by number: what fills up the words of a region is anything. */
static int equal(const vitrify_program *program, const uint8_t *output, const uint8_t *expected)
{
    uint32_t k;
    uint32_t image;
    uint32_t i;

    for (k = 0u; k < program->output_count; k++) {
        const vitrify_output *result = &program->outputs[k];
        for (image = 0u; image < program->batch; image++) {
            for (i = 0u; i < result->count; i++) {
                const double found = vitrify_value(program, result, output, image, i);
                if (found != vitrify_value(program, result, expected, image, i)) {
                    return 0;
                }
            }
        }
    }
    return 1;
}

int main(int count, char **arguments)
{
    static uint8_t output[@UPPER@_OUTPUT_BYTES];
    static vitrify_uio uio;
    static vitrify_session session;
    const vitrify_program *program = &@NAME@_program;
    const vitrify_output *result = &program->outputs[0];
    uint32_t best = 0u;
    uint32_t i;
    int32_t code = vitrify_uio_open(&uio, (count > 1) ? arguments[1] : "/dev/uio0",
                                    (count > 2) ? arguments[2] : "/dev/udmabuf0",
                                    (count > 3) ? arguments[3] : "/sys/class/u-dma-buf/udmabuf0");

    if (code == VITRIFY_OK) {
        code = vitrify_open(&session, &uio.transport, program, LIMIT_MS, 0u);
        if (code == VITRIFY_OK) {
            code = vitrify_run(&session, @NAME@_input, @NAME@_task[0], output);
        }
        vitrify_uio_close(&uio);
    }
    if (code != VITRIFY_OK) {
        (void)fprintf(stderr, "error %d: %s (info 0x%llx)\n", (int)code, vitrify_error_name(code),
                      (unsigned long long)session.error_info);
        return 1;
    }
    for (i = 1u; i < result->count; i++) {
        if (vitrify_value(program, result, output, 0u, i) >
            vitrify_value(program, result, output, 0u, best)) {
            best = i;
        }
    }
    (void)printf("%s: the largest of %u numbers is number %u, %g\n", result->name,
                 (unsigned)result->count, (unsigned)best,
                 vitrify_value(program, result, output, 0u, best));
    if (equal(program, output, @NAME@_expected) == 0) {
        (void)fprintf(stderr, "the output differs from golden's\n");
        return 1;
    }
    (void)printf("equal to golden\n");
    return 0;
}
