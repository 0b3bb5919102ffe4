#include <stdint.h>

/* 1 if the number of ones is odd: what the parity of a header has to make 0. */
static inline uint32_t bitmosaic_odd(uint64_t word)
{
    for (unsigned shift = 32u; shift != 0u; shift >>= 1)
        word ^= word >> shift;
    return (uint32_t)word & 1u;
}

/* XOR of the 16 nibbles: 9 in a good block header. */
static inline uint32_t bitmosaic_nibbles(uint64_t word)
{
    for (unsigned shift = 32u; shift >= 4u; shift >>= 1)
        word ^= word >> shift;
    return (uint32_t)word & 15u;
}

/* Bits [low, low + width) of 32-bit words, the first word lowest; width up to 64. */
static inline uint64_t bitmosaic_get(const uint32_t *words, unsigned low, unsigned width)
{
    uint64_t value = 0;

    for (unsigned bit = 0; bit < width; bit++)
        value |= (uint64_t)(words[(low + bit) / 32u] >> (low + bit) % 32u & 1u) << bit;
    return value;
}

static inline void bitmosaic_put(uint32_t *words, unsigned low, unsigned width, uint64_t value)
{
    for (unsigned bit = 0; bit < width; bit++) {
        const uint32_t one = UINT32_C(1) << (low + bit) % 32u;

        words[(low + bit) / 32u] &= ~one;
        words[(low + bit) / 32u] |= (value >> bit & 1u) ? one : 0u;
    }
}

/* Bytes of an exact token's slot. */
static inline uint32_t bitmosaic_slot_bytes(uint32_t channels)
{
    return channels < 12u ? 16u : (channels + 7u) / 4u * 4u;
}

/* A slot: INT8 codes of a multiple of 4 channels, their FP16 scale, and in key slots that of the token's value. */
static inline void bitmosaic_pack_slot(uint8_t *slot, const int8_t *codes, uint32_t channels, uint16_t scale,
                                       uint16_t value_scale)
{
    for (uint32_t byte = 0; byte < bitmosaic_slot_bytes(channels); byte++)
        slot[byte] = 0;
    for (uint32_t plane = 0; plane < 4u; plane++)
        for (uint32_t channel = 0; channel < channels; channel++) {
            const uint32_t digit = ((uint32_t)(codes[channel] + 128) >> (6u - 2u * plane)) & 3u;
            uint8_t *byte = &slot[plane * channels / 4u + channel / 4u];

            *byte = (uint8_t)(*byte | digit << channel % 4u * 2u);
        }
    slot[channels] = (uint8_t)(scale & 255u);
    slot[channels + 1u] = (uint8_t)(scale >> 8);
    slot[channels + 2u] = (uint8_t)(value_scale & 255u);
    slot[channels + 3u] = (uint8_t)(value_scale >> 8);
}
