/* The book's 6n+2 nets (He et al. 2015, section 4.2), trained and asked in the reader's browser.
 *
 * `make web` compiles this file to WebAssembly, with plain 128-bit SIMD and no library, and puts the module into
 * trainer.js. It has no imports and uses no random numbers but its own, so it computes the same bits in every
 * browser and in Python's wasmtime. tests/test_web.py compares every number with PyTorch's.
 *
 * A map (activations or their gradients) lies in memory as [group][row][column][channel][8]: eight pictures side by
 * side, the lanes of two SIMD registers, then the channels of a pixel. So a convolution multiplies eight pictures by
 * one weight, needs no padding (taps outside the map are left out), and strides need no special care.
 * Parameters lie in PyTorch's layout: kernels [out][in][3][3], the linear layer's weight [class][channel].
 */

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))
enum { LANES = 8, CLASSES = 10, MAX_SIZE = 28, MAX_DEPTH = 56, MAX_CHANNELS = 64, PART = 7 };

typedef float float4 __attribute__((vector_size(16)));
typedef int int4 __attribute__((vector_size(16)));
typedef unsigned int uint32;
typedef unsigned long long uint64;

typedef struct {                       /* a convolution, its batch norm and the ReLU after them */
    int in_channels, out_channels, stride, in_size, out_size;
    const float *input;                /* the map that it reads */
    float *convolved, *output;         /* the maps after the convolution and after ReLU */
    float *kernel, *scale, *shift;
    float *kernel_gradient, *scale_gradient, *shift_gradient;
    float *mean, *inv_std, *factor;    /* of this batch, or the running ones in eval mode; factor = scale * inv_std */
    float *running_mean, *running_var;
    float branch_factor, shortcut_factor;   /* of the two terms of a block's sum, on its second layer; 1 in training */
} Layer;

static int num_layers, batch_size, has_shortcut, num_pictures, num_pixels;
static Layer layers[MAX_DEPTH];
static int num_parameters, num_decayed;                     /* the first `num_decayed` ones: kernels, linear weight */
static float *parameters, *gradients, *momenta, *statistics;
static float *linear_weight, *linear_bias, *linear_weight_gradient, *linear_bias_gradient;
static float *input, *pooled, *pooled_gradient, *logits;
static float *map_gradient[3];                              /* scratch, each as large as the largest map */
static float *packed;                                       /* scratch: a kernel in the order of its use */
static float4 *sums;                                        /* scratch: a kernel's gradient, four partial sums each */
static unsigned char *pictures, *labels;                    /* all pictures [picture][row][column], 0 to 255 */
static int *order, *batch_labels, wrong_answers;

/* ---- memory: one region from the end of the static data upwards; build() starts it anew ---- */

extern unsigned char __heap_base;
static unsigned long heap_top;
static int out_of_memory;

static void *allocate(unsigned long bytes) {
    unsigned long start = heap_top, there = __builtin_wasm_memory_size(0) * 65536ul;
    heap_top = start + ((bytes + 63) & ~63ul);
    if (heap_top > there && __builtin_wasm_memory_grow(0, (heap_top - there + 65535) / 65536) == -1ul)
        out_of_memory = 1;
    return (void *)start;
}

static float *floats(long count) { return allocate(count * sizeof(float)); }

static void clear(float *values, long count) {
    for (long i = 0; i < count; i++) values[i] = 0;
}

/* ---- random numbers: a function of (seed, purpose, index), without state ---- */

static uint32 mix(uint32 x) {                               /* a permutation of 32 bits */
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

static uint32 key(uint32 seed, uint32 purpose) { return mix(mix(seed + 0x9e3779b9u) + purpose); }

static uint32 draw(uint32 key, uint32 index) { return mix(key ^ mix(index + 0x9e3779b9u)); }

/* Mean 0, deviation 1, nearly normal: the sum of twelve uniform numbers of 16 bits each, exact in float32. */
static float normal(uint32 key, uint32 index) {
    int sum = 6 - 6 * 65536;                                /* 6: each uniform number is the middle of its interval */
    for (uint32 i = 0; i < 6; i++) {
        uint32 bits = draw(key, 6 * index + i);
        sum += (bits & 65535) + (bits >> 16);
    }
    return sum / 65536.0f;
}

/* ---- SIMD helpers ---- */

INLINE float4 all(float x) { return (float4){x, x, x, x}; }
INLINE float total(float4 x) { return (x[0] + x[1]) + (x[2] + x[3]); }
INLINE float4 relu(float4 x) { return (float4)((int4)x & ~(x < all(0))); }                  /* NaN stays NaN */
INLINE float4 where_positive(float4 y, float4 x) { return (float4)((int4)x & (y > all(0))); }
INLINE float4 load(const float *p) { return *(const float4 *)p; }
INLINE void store(float *p, float4 x) { *(float4 *)p = x; }

/* ---- convolution, 3x3, padding 1 ---- */

/* Which taps meet the map, in one direction: `count` of them from `first` in steps of `step`; the first reads the
 * pixel `source`, the next ones its neighbours. */
typedef struct { int first, count, step, source; } Taps;

static Taps taps_of(int position, int stride, int in_size) {
    int source = position * stride - 1;
    Taps taps = {0, 3, 1, source};
    if (source < 0) { taps.first = 1; taps.count--; taps.source = 0; }
    if (source + 2 >= in_size) taps.count--;
    return taps;
}

/* The same for the gradient of a convolution of stride 2, with the kernel turned round: every other tap. */
static Taps taps_between(int position, int out_size) {
    if (position % 2 == 0) return (Taps){1, 1, 2, position / 2};
    return (Taps){0, position / 2 + 1 < out_size ? 2 : 1, 2, position / 2};
}

/* y[out_size^2][out_channels] of x[in_size^2][in_channels], all groups; `packed` holds the kernel as
 * [out / 4][3][3][in][4]. `up` = 2 reads x as if zeros lay between its pixels. */
static void convolve(const float *x, float *y, int in_size, int out_size, int in_channels, int out_channels,
                     int stride, int up) {
    Taps taps[MAX_SIZE];
    for (int i = 0; i < out_size; i++) taps[i] = up == 2 ? taps_between(i, in_size) : taps_of(i, stride, in_size);
    long in_group = (long)in_size * in_size * in_channels * LANES;
    for (int group = 0; group < batch_size / LANES; group++, x += in_group)
        for (int row = 0; row < out_size; row++) {
            Taps down = taps[row];
            for (int out = 0; out < out_channels; out += 4) {
                const float *kernel = packed + 9l * in_channels * out;
                float *to = y + out * LANES;
                for (int column = 0; column < out_size; column++, to += out_channels * LANES) {
                    Taps across = taps[column];
                    int runs = up == 2 ? across.count : 1;                  /* neighbouring taps are one run */
                    int length = (up == 2 ? 1 : across.count) * in_channels * 4;
                    const float *x_row = x + (down.source * in_size + across.source) * in_channels * LANES;
                    const float *w_row = kernel + (3 * down.first + across.first) * in_channels * 4;
                    for (int i = 0; i < down.count; i++) {                  /* a row of taps at a time: smaller errors */
                        const float *from = x_row, *w = w_row;
                        float4 a0 = all(0), a1 = a0, b0 = a0, b1 = a0, c0 = a0, c1 = a0, d0 = a0, d1 = a0;
                        for (int run = 0; run < runs; run++, w += in_channels * 4)
                            for (const float *end = w + length; w < end; w += 4, from += LANES) {
                                float4 x0 = load(from), x1 = load(from + 4);
                                a0 += x0 * all(w[0]); a1 += x1 * all(w[0]);
                                b0 += x0 * all(w[1]); b1 += x1 * all(w[1]);
                                c0 += x0 * all(w[2]); c1 += x1 * all(w[2]);
                                d0 += x0 * all(w[3]); d1 += x1 * all(w[3]);
                            }
                        float4 sums[8] = {a0, a1, b0, b1, c0, c1, d0, d1};
                        for (int j = 0; j < 8; j++) store(to + 4 * j, i ? load(to + 4 * j) + sums[j] : sums[j]);
                        x_row += in_size * in_channels * LANES;
                        w_row += 3 * down.step * in_channels * 4;
                    }
                }
            }
            y += out_size * out_channels * LANES;
        }
}

static void convolution(const Layer *l) {
    for (int out = 0; out < l->out_channels; out++)
        for (int in = 0; in < l->in_channels; in++)
            for (int tap = 0; tap < 9; tap++)
                packed[((out / 4 * 9 + tap) * l->in_channels + in) * 4 + out % 4] =
                    l->kernel[(out * l->in_channels + in) * 9 + tap];
    convolve(l->input, l->convolved, l->in_size, l->out_size, l->in_channels, l->out_channels, l->stride, 1);
}

/* The gradient of the layer's input from that of its convolution's output: the kernel turned round. */
static void input_gradient(const Layer *l, const float *gradient, float *to) {
    for (int out = 0; out < l->out_channels; out++)
        for (int in = 0; in < l->in_channels; in++)
            for (int tap = 0; tap < 9; tap++)
                packed[((in / 4 * 9 + 8 - tap) * l->out_channels + out) * 4 + in % 4] =
                    l->kernel[(out * l->in_channels + in) * 9 + tap];
    convolve(gradient, to, l->out_size, l->in_size, l->out_channels, l->in_channels, 1, l->stride);
}

/* Adds to sums[in][2] the products of `ins` input channels with two channels of the gradient, over a part of a map. */
INLINE void add_products(const float *x, const float *gradient, float4 *sums, int ins, int rows, int columns,
                         int x_step, int x_skip, int g_step, int g_skip) {
    float4 a[4][2] = {{all(0)}};
    for (int half = 0; half < LANES; half += 4) {
        const float *xp = x + half, *gp = gradient + half;
        for (int row = 0; row < rows; row++, xp += x_skip, gp += g_skip)
            for (int column = 0; column < columns; column++, xp += x_step, gp += g_step) {
                float4 g0 = load(gp), g1 = load(gp + LANES);
                for (int in = 0; in < ins; in++) {
                    float4 value = load(xp + in * LANES);
                    a[in][0] += value * g0;
                    a[in][1] += value * g1;
                }
            }
    }
    for (int in = 0; in < ins; in++) { sums[2 * in] += a[in][0]; sums[2 * in + 1] += a[in][1]; }
}

static void kernel_gradient(const Layer *l, const float *gradient) {
    int size = l->out_size, stride = l->stride, ins = l->in_channels < 4 ? 1 : 4;
    int x_step = l->in_channels * LANES, x_row = l->in_size * x_step, g_step = l->out_channels * LANES;
    int inside = l->in_size - (size - 1) * stride;          /* the last output's taps from here on leave the map */
    for (int i = 0; i < 9 * l->in_channels * l->out_channels; i++) sums[i] = all(0);
    for (int group = 0; group < batch_size / LANES; group++)
        for (int begin = 0; begin < size; begin += PART) {  /* so few rows at a time stay in the fastest cache */
            int end = begin + PART < size ? begin + PART : size;
            float4 *to = sums;                              /* [out / 2][in / ins][3][3][ins][2] */
            for (int out = 0; out < l->out_channels; out += 2)
                for (int in = 0; in < l->in_channels; in += ins)
                    for (int tap = 0; tap < 9; tap++, to += 2 * ins) {
                        int down = tap / 3 - 1, across = tap % 3 - 1;     /* output row r reads row stride r + down */
                        int top = begin + (begin + down < 0), left = across < 0;
                        int rows = end - (end == size && down >= inside) - top;
                        int columns = size - (across >= inside) - left;
                        const float *x = l->input + (group * l->in_size + top * stride + down) * x_row
                                         + (left * stride + across) * x_step + in * LANES;
                        const float *g = gradient + ((group * size + top) * size + left) * g_step + out * LANES;
                        int x_skip = stride * (x_row - columns * x_step), g_skip = (size - columns) * g_step;
                        if (ins == 4) add_products(x, g, to, 4, rows, columns, stride * x_step, x_skip, g_step, g_skip);
                        else add_products(x, g, to, 1, rows, columns, stride * x_step, x_skip, g_step, g_skip);
                    }
        }
    const float4 *from = sums;
    for (int out = 0; out < l->out_channels; out += 2)
        for (int in = 0; in < l->in_channels; in += ins)
            for (int tap = 0; tap < 9; tap++)
                for (int i = 0; i < 2 * ins; i++)
                    l->kernel_gradient[((out + i % 2) * l->in_channels + in + i / 2) * 9 + tap] = total(*from++);
}

/* ---- batch norm, shortcut, ReLU ---- */

static void set_inv_std(const Layer *l, int channel, double variance) {
    l->inv_std[channel] = 1 / __builtin_sqrt(variance + 1e-5);
    l->factor[channel] = l->scale[channel] * l->inv_std[channel];
}

/* Mean and deviation of each channel over the batch's pictures and pixels; the running ones follow by a tenth. Sums
 * are short ones of float32, a row of pixels each, added up in double. */
static void batch_statistics(const Layer *l) {
    int size = l->out_size, rows = batch_size / LANES * size, step = l->out_channels * LANES;
    double count = (double)batch_size * size * size, sums[MAX_CHANNELS] = {0}, squares[MAX_CHANNELS] = {0};
    for (int row = 0; row < rows; row++)
        for (int channel = 0; channel < l->out_channels; channel++) {
            const float *z = l->convolved + row * size * step + channel * LANES;
            float4 s0 = all(0), s1 = s0;
            for (int column = 0; column < size; column++, z += step) { s0 += load(z); s1 += load(z + 4); }
            sums[channel] += total(s0 + s1);
        }
    for (int channel = 0; channel < l->out_channels; channel++) l->mean[channel] = sums[channel] / count;
    for (int row = 0; row < rows; row++)
        for (int channel = 0; channel < l->out_channels; channel++) {
            const float *z = l->convolved + row * size * step + channel * LANES;
            float4 s0 = all(0), s1 = s0, mean = all(l->mean[channel]);
            for (int column = 0; column < size; column++, z += step) {
                float4 d0 = load(z) - mean, d1 = load(z + 4) - mean;
                s0 += d0 * d0;
                s1 += d1 * d1;
            }
            squares[channel] += total(s0 + s1);
        }
    for (int channel = 0; channel < l->out_channels; channel++) {
        set_inv_std(l, channel, squares[channel] / count);
        l->running_mean[channel] += 0.1f * (l->mean[channel] - l->running_mean[channel]);
        l->running_var[channel] += 0.1f * ((float)(squares[channel] / (count - 1)) - l->running_var[channel]);
    }
}

static void running_statistics(const Layer *l) {
    for (int channel = 0; channel < l->out_channels; channel++) {
        l->mean[channel] = l->running_mean[channel];
        set_inv_std(l, channel, l->running_var[channel]);
    }
}

INLINE float4 normalise(const Layer *l, int channel, float4 z) {
    return (z - all(l->mean[channel])) * all(l->factor[channel]) + all(l->shift[channel]);
}

/* output = relu(norm(convolved) + shortcut of the block's input), each times its factor: option A takes every
 * stride-th pixel, and zeros for the channels that are new. `first` is the block's first layer, 0 where nothing is
 * added. */
static void activate(const Layer *l, const Layer *first) {
    int size = l->out_size, shared = first ? first->in_channels : 0;
    const float *z = l->convolved, *x = 0;
    float *y = l->output;
    float4 branch = all(l->branch_factor), shortcut = all(l->shortcut_factor);
    for (int i = 0; i < batch_size / LANES * size * size; i++) {
        int group = i / (size * size), row = i / size % size, column = i % size, channel = 0;
        if (first) x = first->input + ((group * first->in_size + row * first->stride) * first->in_size
                                       + column * first->stride) * shared * LANES;
        for (; channel < shared; channel++, z += LANES, y += LANES, x += LANES) {
            store(y, relu(branch * normalise(l, channel, load(z)) + shortcut * load(x)));
            store(y + 4, relu(branch * normalise(l, channel, load(z + 4)) + shortcut * load(x + 4)));
        }
        for (; channel < l->out_channels; channel++, z += LANES, y += LANES) {
            store(y, relu(branch * normalise(l, channel, load(z))));
            store(y + 4, relu(branch * normalise(l, channel, load(z + 4))));
        }
    }
}

/* Back through ReLU, in place (0 where it gave 0): the gradients of scale and shift. */
static void relu_gradient(const Layer *l, float *gradient) {
    int size = l->out_size, rows = batch_size / LANES * size, step = l->out_channels * LANES;
    double sums[MAX_CHANNELS] = {0}, products[MAX_CHANNELS] = {0};
    for (int row = 0; row < rows; row++)
        for (int channel = 0; channel < l->out_channels; channel++) {
            long place = (long)row * size * step + channel * LANES;
            const float *z = l->convolved + place, *y = l->output + place;
            float *g = gradient + place;
            float4 s0 = all(0), s1 = s0, p0 = s0, p1 = s0, mean = all(l->mean[channel]);
            for (int column = 0; column < size; column++, g += step, y += step, z += step) {
                float4 g0 = where_positive(load(y), load(g)), g1 = where_positive(load(y + 4), load(g + 4));
                s0 += g0; p0 += g0 * (load(z) - mean); store(g, g0);
                s1 += g1; p1 += g1 * (load(z + 4) - mean); store(g + 4, g1);
            }
            sums[channel] += total(s0 + s1);
            products[channel] += total(p0 + p1);
        }
    for (int channel = 0; channel < l->out_channels; channel++) {
        l->shift_gradient[channel] = sums[channel];
        l->scale_gradient[channel] = products[channel] * l->inv_std[channel];
    }
}

/* And back through the norm, to the gradient of what was convolved; `to` may be the same map. */
static void norm_gradient(const Layer *l, const float *gradient, float *to) {
    int pixels = batch_size / LANES * l->out_size * l->out_size;
    float count = (float)batch_size * l->out_size * l->out_size, slope[MAX_CHANNELS], mean_gradient[MAX_CHANNELS];
    for (int channel = 0; channel < l->out_channels; channel++) {
        mean_gradient[channel] = l->shift_gradient[channel] / count;
        slope[channel] = l->scale_gradient[channel] * l->inv_std[channel] / count;
    }
    const float *g = gradient, *z = l->convolved;
    for (int pixel = 0; pixel < pixels; pixel++)
        for (int channel = 0; channel < l->out_channels; channel++, g += LANES, z += LANES, to += LANES) {
            float4 factor = all(l->factor[channel]), mean = all(l->mean[channel]);
            float4 g_mean = all(mean_gradient[channel]), z_slope = all(slope[channel]);
            store(to, factor * (load(g) - g_mean - (load(z) - mean) * z_slope));
            store(to + 4, factor * (load(g + 4) - g_mean - (load(z + 4) - mean) * z_slope));
        }
}

/* Adds the gradient that the shortcut of a block, `first` its first layer, carries to the block's input. */
static void shortcut_gradient(const Layer *first, const float *gradient, float *to) {
    int shared = first->in_channels * LANES;
    for (int group = 0; group < batch_size / LANES; group++)
        for (int row = 0; row < first->out_size; row++)
            for (int column = 0; column < first->out_size; column++, gradient += first->out_channels * LANES) {
                float *x = to + (((long)group * first->in_size + row * first->stride) * first->in_size
                                 + column * first->stride) * shared;
                for (int i = 0; i < shared; i += 4) store(x + i, load(x + i) + load(gradient + i));
            }
}

/* ---- pooling, linear layer, cross-entropy ---- */

static double exponential(double x) {                       /* e^x for x <= 0, NaN for NaN */
    if (x < -700) return 0;
    if (x != x) return x;
    int power = (int)(x * 1.4426950408889634 - 0.5);        /* x = power ln 2 + rest, |rest| <= ln 2 / 2 */
    double rest = x - power * 0.6931471805599453, sum = 1;
    for (int i = 13; i > 0; i--) sum = 1 + sum * rest / i;
    union { uint64 bits; double value; } two = {(uint64)(1023 + power) << 52};
    return sum * two.value;
}

static double logarithm(double x) {                         /* ln x for 1 <= x <= CLASSES, by Halley's iteration */
    double y = 0;
    for (int i = 0; i < 5; i++) {
        double inverse = x * exponential(-y);               /* x / e^y */
        y += 2 * (inverse - 1) / (inverse + 1);
    }
    return y;
}

/* Mean of each channel over the map's pixels, then the logits. */
static void classify(const Layer *last) {
    int pixels = last->out_size * last->out_size, channels = last->out_channels;
    for (int group = 0; group < batch_size / LANES; group++)
        for (int channel = 0; channel < channels; channel++) {
            const float *y = last->output + ((long)group * pixels * channels + channel) * LANES;
            float4 s0 = all(0), s1 = s0;
            for (int i = 0; i < pixels; i++, y += channels * LANES) { s0 += load(y); s1 += load(y + 4); }
            store(pooled + (group * channels + channel) * LANES, s0 / all(pixels));
            store(pooled + (group * channels + channel) * LANES + 4, s1 / all(pixels));
        }
    for (int picture = 0; picture < batch_size; picture++) {
        const float *x = pooled + picture / LANES * channels * LANES + picture % LANES;
        for (int class = 0; class < CLASSES; class++) {
            float sum = linear_bias[class];
            for (int channel = 0; channel < channels; channel++)
                sum += linear_weight[class * channels + channel] * x[channel * LANES];
            logits[picture * CLASSES + class] = sum;
        }
    }
}

/* The mean loss of the batch; counts the wrong answers; turns logits into probabilities in `to`, if there is one. */
static double cross_entropy(float *to) {
    double loss = 0;
    wrong_answers = 0;
    for (int picture = 0; picture < batch_size; picture++) {
        const float *z = logits + picture * CLASSES;
        int answer = 0;
        double sum = 0;
        for (int class = 1; class < CLASSES; class++) if (z[class] > z[answer]) answer = class;
        for (int class = 0; class < CLASSES; class++) sum += exponential((double)z[class] - z[answer]);
        loss += logarithm(sum) - ((double)z[batch_labels[picture]] - z[answer]);
        wrong_answers += answer != batch_labels[picture];
        for (int class = 0; to && class < CLASSES; class++)
            to[picture * CLASSES + class] = exponential((double)z[class] - z[answer]) / sum;
    }
    return loss / batch_size;
}

/* The gradients of the linear layer, and that of the last layer's output. */
static void head_gradient(const Layer *last, float *to) {
    int pixels = last->out_size * last->out_size, channels = last->out_channels;
    clear(linear_weight_gradient, CLASSES * channels);
    clear(linear_bias_gradient, CLASSES);
    clear(pooled_gradient, (long)batch_size * channels);
    float *probabilities = packed;
    cross_entropy(probabilities);
    for (int picture = 0; picture < batch_size; picture++) {
        long first = picture / LANES * channels * LANES + picture % LANES;
        for (int class = 0; class < CLASSES; class++) {
            float gradient = (probabilities[picture * CLASSES + class] - (class == batch_labels[picture])) / batch_size;
            linear_bias_gradient[class] += gradient;
            for (int channel = 0; channel < channels; channel++) {
                linear_weight_gradient[class * channels + channel] += gradient * pooled[first + channel * LANES];
                pooled_gradient[first + channel * LANES] += gradient * linear_weight[class * channels + channel];
            }
        }
    }
    for (int group = 0; group < batch_size / LANES; group++)
        for (int pixel = 0; pixel < pixels; pixel++)
            for (int i = 0; i < channels * LANES; i += 4, to += 4)
                store(to, load(pooled_gradient + group * channels * LANES + i) / all(pixels));
}

/* ---- what the page calls ---- */

/* Channels, strides and sizes: a stem, then three stages of `blocks` blocks of two layers. Returns all channels. */
static int set_shapes(int size, int width, int blocks) {
    int channels = 0;
    for (int i = 0; i < num_layers; i++) {
        Layer *l = &layers[i];
        int stage = i ? (i - 1) / (2 * blocks) : 0, changes = i > 1 && (i - 1) % (2 * blocks) == 0;
        l->in_channels = i ? layers[i - 1].out_channels : 1;
        l->out_channels = width << stage;
        l->stride = changes ? 2 : 1;
        l->in_size = size;
        l->out_size = size = (size - 1) / l->stride + 1;
        l->branch_factor = l->shortcut_factor = 1;
        channels += l->out_channels;
    }
    return channels;
}

/* Maps and parameters of each layer; kernels lie from `kernel` on, scales and shifts from `norm` on. */
static void place_layers(long kernel, long norm, int channels) {
    float *batch_values = floats(3 * channels), *running = statistics;
    for (int i = 0; i < num_layers; i++) {
        Layer *l = &layers[i];
        long map = (long)batch_size * l->out_size * l->out_size * l->out_channels;
        l->input = i ? layers[i - 1].output : input;
        l->convolved = floats(map), l->output = floats(map);
        l->kernel = parameters + kernel, l->kernel_gradient = gradients + kernel;
        l->scale = parameters + norm, l->scale_gradient = gradients + norm;
        l->shift = l->scale + l->out_channels, l->shift_gradient = l->scale_gradient + l->out_channels;
        l->mean = batch_values, l->inv_std = l->mean + l->out_channels, l->factor = l->inv_std + l->out_channels;
        l->running_mean = running, l->running_var = running + l->out_channels;
        kernel += 9l * l->in_channels * l->out_channels;
        norm += 2 * l->out_channels;
        running += 2 * l->out_channels;
        batch_values += 3 * l->out_channels;
    }
}

/* Lay out a net of 6n+2 layers, with option A's shortcut or none, and room for `count` pictures of 14x14 or 28x28
 * pixels. Returns the bytes of memory in use, or 0 where an argument is not allowed or the memory is not to be had. */
EXPORT unsigned long build(int depth, int width, int batch, int shortcut, int count, int size) {
    if (depth < 8 || depth > MAX_DEPTH || (depth - 2) % 6 || (width != 8 && width != 16)) return 0;
    if (size != MAX_SIZE && size != MAX_SIZE / 2) return 0;
    if (batch < LANES || batch % LANES || count < batch || count % batch) return 0;
    heap_top = ((unsigned long)&__heap_base + 63) & ~63ul;
    out_of_memory = 0;
    num_layers = depth - 1, batch_size = batch, has_shortcut = shortcut != 0, num_pictures = count;
    num_pixels = size * size;
    pictures = allocate((long)count * num_pixels), labels = allocate(count);
    order = allocate(count * sizeof(int)), batch_labels = allocate(batch * sizeof(int));

    int channels = set_shapes(size, width, (depth - 2) / 6), last = 4 * width, largest = 9 * last * last, kernels = 0;
    for (int i = 0; i < num_layers; i++) kernels += 9 * layers[i].in_channels * layers[i].out_channels;
    num_decayed = kernels + CLASSES * last;
    num_parameters = num_decayed + 2 * channels + CLASSES;
    parameters = floats(num_parameters), gradients = floats(num_parameters), momenta = floats(num_parameters);
    statistics = floats(2 * channels);
    input = floats((long)batch * num_pixels);
    place_layers(0, num_decayed, channels);
    linear_weight = parameters + kernels, linear_weight_gradient = gradients + kernels;
    linear_bias = parameters + num_parameters - CLASSES, linear_bias_gradient = gradients + num_parameters - CLASSES;
    pooled = floats((long)batch * last), pooled_gradient = floats((long)batch * last);
    logits = floats((long)batch * CLASSES);
    for (int i = 0; i < 3; i++) map_gradient[i] = floats((long)batch * num_pixels * width);
    packed = floats(largest > batch * CLASSES ? largest : batch * CLASSES);
    sums = allocate(largest * sizeof(float4));
    return out_of_memory ? 0 : heap_top;
}

/* Weights as at the start of a run: kernels normal with deviation sqrt(2 / (9 out_channels)), the linear weight
 * uniform within 1 / sqrt(channels), scales 1, shifts and bias 0. Plain and residual nets of one seed start equal. */
EXPORT void start(uint32 seed) {
    clear(parameters, num_parameters);
    clear(momenta, num_parameters);
    for (int i = 0; i < num_layers; i++) {
        Layer *l = &layers[i];
        float deviation = __builtin_sqrtf(2.0f / (9 * l->out_channels));
        for (int j = 0; j < 9 * l->in_channels * l->out_channels; j++)
            l->kernel[j] = deviation * normal(key(seed, i), j);
        for (int j = 0; j < l->out_channels; j++) {
            l->scale[j] = l->running_var[j] = 1;
            l->running_mean[j] = 0;
        }
    }
    int channels = layers[num_layers - 1].out_channels;
    float bound = 1 / __builtin_sqrtf(channels);
    for (int j = 0; j < CLASSES * channels; j++)
        linear_weight[j] = bound * ((int)(draw(key(seed, num_layers), j) >> 16) - 32767.5f) / 32768;
}

/* The order of an epoch's pictures: Fisher and Yates, from the last place down. */
EXPORT void shuffle(uint32 seed, uint32 epoch) {
    uint32 order_key = key(seed, 1000 + epoch);
    for (int i = 0; i < num_pictures; i++) order[i] = i;
    for (int i = num_pictures - 1; i > 0; i--) {
        int j = (uint64)draw(order_key, i) * (i + 1) >> 32;
        int swapped = order[i];
        order[i] = order[j];
        order[j] = swapped;
    }
}

/* Make pictures first, first + 1 ... of the shuffled order (or, in_turn, of the stored one) the batch. */
EXPORT void take(int first, int in_turn) {
    for (int i = 0; i < batch_size; i++) {
        int which = in_turn ? first + i : order[first + i];
        const unsigned char *from = pictures + (long)which * num_pixels;
        float *to = input + (long)(i / LANES) * num_pixels * LANES + i % LANES;
        for (int pixel = 0; pixel < num_pixels; pixel++) to[pixel * LANES] = (from[pixel] / 255.0f - 0.2860f) / 0.3530f;
        batch_labels[i] = labels[which];
    }
}

/* The mean loss of the batch, NaN or infinite when the net has diverged; errors() tells how many answers were wrong. */
EXPORT double forward(int training) {
    for (int i = 0; i < num_layers; i++) {
        convolution(&layers[i]);
        if (training) batch_statistics(&layers[i]); else running_statistics(&layers[i]);
        activate(&layers[i], has_shortcut && i && i % 2 == 0 ? &layers[i - 1] : 0);
    }
    classify(&layers[num_layers - 1]);
    return cross_entropy(0);
}

/* All gradients, after forward(1). */
EXPORT void backward(void) {
    float *block = map_gradient[0], *branch = map_gradient[1], *inner = map_gradient[2];
    head_gradient(&layers[num_layers - 1], block);
    for (int i = num_layers - 1; i > 0; i -= 2) {           /* a block at a time: its gradient in, its input's out */
        Layer *second = &layers[i], *first = &layers[i - 1];
        relu_gradient(second, block);
        norm_gradient(second, block, branch);
        kernel_gradient(second, branch);
        input_gradient(second, branch, inner);
        relu_gradient(first, inner);
        norm_gradient(first, inner, inner);
        kernel_gradient(first, inner);
        input_gradient(first, inner, branch);
        if (has_shortcut) shortcut_gradient(first, block, branch);
        float *input_of_block = branch;
        branch = block;
        block = input_of_block;
    }
    relu_gradient(&layers[0], block);
    norm_gradient(&layers[0], block, block);
    kernel_gradient(&layers[0], block);
}

/* SGD with momentum; weight decay on kernels and the linear weight, none on scales, shifts and bias. */
EXPORT void update(float lr, float momentum, float weight_decay) {
    for (int i = 0; i < num_parameters; i++) {
        float gradient = gradients[i] + (i < num_decayed ? weight_decay * parameters[i] : 0);
        momenta[i] = momentum * momenta[i] + gradient;
        parameters[i] -= lr * momenta[i];
    }
}

/* Step number `step` (from 0) of a run: an epoch's first one shuffles. Returns the batch's loss before the update. */
EXPORT double train(uint32 seed, int step, float lr) {
    int per_epoch = num_pictures / batch_size;
    if (step % per_epoch == 0) shuffle(seed, step / per_epoch);
    take(step % per_epoch * batch_size, 0);
    double loss = forward(1);
    backward();
    update(lr, 0.9f, 1e-4f);
    return loss;
}

/* The mean loss of all pictures in eval mode; errors() tells how many answers were wrong. */
EXPORT double measure(void) {
    double loss = 0;
    int wrong = 0;
    for (int first = 0; first < num_pictures; first += batch_size) {
        take(first, 1);
        loss += forward(0) * batch_size;
        wrong += wrong_answers;
    }
    wrong_answers = wrong;
    return loss / num_pictures;
}

EXPORT int errors(void) { return wrong_answers; }

/* Multiply a block's branch and its shortcut (number 0 is the first block's) before they are summed. For a net that is
 * asked, not trained: backward() takes both for 1. */
EXPORT void scale_block(int block, float branch, float shortcut) {
    Layer *last = &layers[2 * block + 2];
    last->branch_factor = branch, last->shortcut_factor = shortcut;
}

/* Where the map lies that layer number `layer` (0 is the stem's) gave in the last forward(). */
EXPORT float *map_at(int layer) { return layers[layer].output; }

/* Where things lie. Parameters, gradients and momenta: all kernels, the linear weight, then scale and shift of each
 * layer, the linear bias. Statistics: running mean and variance of each layer. */
EXPORT int parameter_count(void) { return num_parameters; }
EXPORT float *parameters_at(void) { return parameters; }
EXPORT float *gradients_at(void) { return gradients; }
EXPORT float *momenta_at(void) { return momenta; }
EXPORT float *statistics_at(void) { return statistics; }
EXPORT float *logits_at(void) { return logits; }
EXPORT unsigned char *pictures_at(void) { return pictures; }
EXPORT unsigned char *labels_at(void) { return labels; }
EXPORT int *order_at(void) { return order; }
