/* Pictures to input regions, output regions to numbers: vitrify.program.pack in C.

   The results are those of NumPy bit by bit, but for float16 (vitrify_value).  Products are
   volatile where a sum follows: compilers would make one operation of the two, with one rounding
   less. */
#include "vitrify.h"

typedef struct source {
    const uint8_t *pixels;
    const float *values;
    uint32_t channel_step, row_step, column_step;
} source;

/* To the nearest integer, halves to the even one, within a byte. */
static int8_t rounded(double value)
{
    int32_t whole;
    double rest;

    if (value >= 127.0) {
        return 127;
    }
    if (value <= -128.0) {
        return -128;
    }
    whole = (int32_t)value;
    rest = value - (double)whole;
    if ((rest > 0.5) || ((rest >= 0.5) && ((whole % 2) != 0))) {
        whole++;
    } else if ((rest < -0.5) || ((rest <= -0.5) && ((whole % 2) != 0))) {
        whole--;
    } else {
        /* It is the nearest one. */
    }
    return (int8_t)whole;
}

static int8_t byte_of(const vitrify_input *input, const source *from, uint32_t channel, int32_t y,
                      int32_t x)
{
    const uint32_t outside =
        ((y < 0) || (x < 0) || (y >= (int32_t)input->height) || (x >= (int32_t)input->width)) ? 1u
                                                                                              : 0u;
    uint32_t at;
    volatile double product;
    int8_t result;

    if (outside != 0u) {
        result = input->padding[channel];
    } else {
        at = (channel * from->channel_step) + ((uint32_t)y * from->row_step) +
             ((uint32_t)x * from->column_step);
        if (from->pixels != NULL) {
            result = input->pixels[(channel * 256u) + from->pixels[at]];
        } else {
            product = (double)from->values[at] * input->multiplier[channel];
            result = rounded(product + input->offset[channel]);
        }
    }
    return result;
}

/* The byte of a row and a column of the input tensor. */
static int8_t element(const vitrify_input *input, const source *from, uint32_t row,
                      uint32_t column)
{
    const uint32_t area = input->patch_height * input->patch_width;
    uint32_t patch;
    uint32_t inside;
    int32_t y;
    int32_t x;
    int8_t result = 0;

    if ((row >= input->prefix) && (column < (input->channels * area))) {
        patch = row - input->prefix;
        inside = column % area;
        y = (int32_t)(((patch / input->patches_x) * input->stride_y) +
                      (inside / input->patch_width)) -
            (int32_t)input->pad_top;
        x = (int32_t)(((patch % input->patches_x) * input->stride_x) +
                      (inside % input->patch_width)) -
            (int32_t)input->pad_left;
        result = byte_of(input, from, column / area, y, x);
    }
    return result;
}

static void pack(const vitrify_program *program, const source *from, uint32_t index,
                 uint8_t *region)
{
    const vitrify_input *input = program->input;
    const uint32_t columns = input->channels * input->patch_height * input->patch_width;
    uint8_t *to = &region[index * (program->input_bytes / program->batch)];
    uint32_t block;
    uint32_t first;
    uint32_t row;
    uint32_t i;

    for (block = 0u; block < input->block_count; block++) {
        for (first = 0u; first < columns; first += program->depth) {
            for (row = 0u; row < input->blocks[(2u * block) + 1u]; row++) {
                for (i = 0u; i < program->depth; i++) {
                    *to = (uint8_t)element(input, from, input->blocks[2u * block] + row,
                                           first + i);
                    to++;
                }
            }
        }
    }
}

int32_t vitrify_pack_pixels(const vitrify_program *program, const uint8_t *pixels, uint32_t order,
                            uint32_t index, uint8_t *region)
{
    const vitrify_input *input = program->input;
    const uint32_t planar = (order == VITRIFY_PLANAR) ? 1u : 0u;
    source from;

    if (input->pixels == NULL) {
        return VITRIFY_BAD_VALUE;
    }
    from.pixels = pixels;
    from.values = NULL;
    from.channel_step = (planar != 0u) ? (input->height * input->width) : 1u;
    from.row_step = (planar != 0u) ? input->width : (input->width * input->channels);
    from.column_step = (planar != 0u) ? 1u : input->channels;
    pack(program, &from, index, region);
    return VITRIFY_OK;
}

int32_t vitrify_pack_floats(const vitrify_program *program, const float *values, uint32_t index,
                            uint8_t *region)
{
    const vitrify_input *input = program->input;
    const uint32_t count = input->channels * input->height * input->width;
    source from;
    uint32_t i;

    for (i = 0u; i < count; i++) {
        /* False for infinities and what is no number. */
        if (!((values[i] - values[i]) >= 0.0f)) {
            return VITRIFY_BAD_VALUE;
        }
    }
    from.pixels = NULL;
    from.values = values;
    from.channel_step = input->height * input->width;
    from.row_step = input->width;
    from.column_step = 1u;
    pack(program, &from, index, region);
    return VITRIFY_OK;
}

/* The integer of a row and a channel of an output tensor. */
static int32_t integer(const vitrify_program *program, const vitrify_output *output,
                       const uint8_t *data, uint32_t row, uint32_t channel)
{
    const uint32_t depth = program->depth;
    const uint32_t planes = output->bits / 8u;
    const uint32_t at = (((((channel / depth) * output->rows) + row) * planes) * depth) +
                        (channel % depth);
    int32_t value;

    if (planes == 1u) {
        value = (int32_t)data[at];
        value = (value >= 0x80) ? (value - 0x100) : value;
    } else {
        value = (int32_t)((uint32_t)data[at] | ((uint32_t)data[at + depth] << 8));
        value = (value >= 0x8000) ? (value - 0x10000) : value;
    }
    return value;
}

/* Which integer of the tensor an element of the result is. */
static uint32_t flat(const vitrify_output *output, uint32_t element_)
{
    int32_t at = output->start;
    uint32_t rest = element_;
    uint32_t i;

    if (output->steps == NULL) {
        return element_;
    }
    for (i = output->dimensions; i > 0u; i--) {
        at += (int32_t)(rest % output->shape[i - 1u]) * output->steps[i - 1u];
        rest /= output->shape[i - 1u];
    }
    return (uint32_t)at;
}

/* To the nearest integer, halves to the even one; the type's bounds keep |value| below 2**63. */
static double rounded_wide(double value)
{
    const int64_t whole = (int64_t)value;
    const double rest = value - (double)whole;
    const double odd = ((whole % 2) != 0) ? 1.0 : 0.0;
    double result = (double)whole;

    if ((rest > 0.5) || ((rest >= 0.5) && (odd > 0.0))) {
        result = result + 1.0;
    } else if ((rest < -0.5) || ((rest <= -0.5) && (odd > 0.0))) {
        result = result - 1.0;
    } else {
        /* It is the nearest one. */
    }
    return result;
}

double vitrify_value(const vitrify_program *program, const vitrify_output *output,
                     const uint8_t *region, uint32_t index, uint32_t element_)
{
    const uint8_t *data =
        &region[(index * (program->output_bytes / program->batch)) + output->offset];
    const uint32_t at = flat(output, element_);
    const uint32_t channel = at % output->channels;
    const int32_t difference =
        integer(program, output, data, at / output->channels, channel) - output->zero_point;
    volatile double product = (double)difference * output->scale[channel * output->scale_step];
    double value;

    product = product * output->factor[channel * output->factor_step];
    value = product + output->shift[channel * output->shift_step];
    if (output->type == VITRIFY_FLOAT32) {
        value = (double)(float)value;
    } else if (output->type == VITRIFY_INTEGER) {
        if (value >= output->high) {
            value = output->high;
        } else if (value <= output->low) {
            value = output->low;
        } else {
            value = rounded_wide(value);
        }
    } else {
        /* A double as it is. */
    }
    return value;
}

void vitrify_unpack(const vitrify_program *program, const vitrify_output *output,
                    const uint8_t *region, uint32_t index, float *values)
{
    uint32_t i;

    for (i = 0u; i < output->count; i++) {
        values[i] = (float)vitrify_value(program, output, region, index, i);
    }
}
