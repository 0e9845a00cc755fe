#pragma once

// One vector register of floats: everything that the kernels use of an instruction set. Compiled once for
// each instruction set, in a namespace of its own, so that a function compiled for one is never linked in
// for another. For the same reason kernels call no function of the standard library that might not be
// inlined.
//
// Half and BFloat16 are storage types: loads widen to float, stores round to nearest even.

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "args/common.h"

namespace effkernels::cpu::EFFKERNELS_ISA {

#if defined(__AVX512F__)

constexpr int kLanes = 16;
constexpr int kRegisters = 32;
using Native = __m512;

#elif defined(__AVX2__)

constexpr int kLanes = 8;
constexpr int kRegisters = 16;
using Native = __m256;

#else  // SSE2 or NEON, which every x86-64 or 64-bit Arm processor has, through the compiler's vector
       // extension

constexpr int kLanes = 4;
#if defined(__aarch64__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif
typedef float Native __attribute__((vector_size(16)));
typedef int32_t Integers __attribute__((vector_size(16)));

#endif

struct Vec {
  Native v;
};

EFFKERNELS_INLINE Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
EFFKERNELS_INLINE Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
EFFKERNELS_INLINE Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
EFFKERNELS_INLINE Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }

// 2^(i / kPowers), for as many i as one instruction looks up: 16 with AVX-512, 8 with AVX2; elsewhere 8, one
// by one. From the bits of each, i << (23 - kPowersLog2) is subtracted: power_of_two adds it with n.
constexpr int kPowersLog2 = kLanes == 16 ? 4 : 3;
constexpr int kPowers = 1 << kPowersLog2;
struct PowerTable {
  alignas(64) float entries[kPowers];
  constexpr PowerTable() : entries() {
    constexpr float kSixteenths[] = {1.0f,        1.04427378f, 1.09050773f, 1.13878863f,
                                     1.18920712f, 1.24185781f, 1.29683955f, 1.35425555f,
                                     1.41421356f, 1.47682615f, 1.54221083f, 1.61049033f,
                                     1.68179283f, 1.75625216f, 1.83400809f, 1.91520656f};
    for (int i = 0; i < kPowers; ++i) {
      const uint32_t bits = __builtin_bit_cast(uint32_t, kSixteenths[i * (16 / kPowers)]);
      entries[i] = __builtin_bit_cast(float, bits - (static_cast<uint32_t>(i) << (23 - kPowersLog2)));
    }
  }
};
inline constexpr PowerTable kPowerTable;

// Converts one element to a float, and back.
EFFKERNELS_INLINE float from_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
EFFKERNELS_INLINE uint32_t to_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

EFFKERNELS_INLINE float widen(float x) { return x; }
EFFKERNELS_INLINE float widen(uint8_t x) { return static_cast<float>(x); }
EFFKERNELS_INLINE float widen(BFloat16 x) { return from_bits(static_cast<uint32_t>(x.bits) << 16); }
EFFKERNELS_INLINE float widen(Half x) {
  constexpr uint32_t kExponent = 0x7c00u << 13;
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  uint32_t bits = static_cast<uint32_t>(x.bits & 0x7fffu) << 13;
  const uint32_t exponent = bits & kExponent;
  bits += (127u - 15u) << 23;
  if (exponent == kExponent) bits += (128u - 16u) << 23;  // infinity, NaN
  if (exponent == 0) bits = to_bits(from_bits(bits + (1u << 23)) - 6.103515625e-05f);
  return from_bits(bits | sign);
}

template <class T>
EFFKERNELS_INLINE T narrow(float x);
template <>
EFFKERNELS_INLINE BFloat16 narrow<BFloat16>(float x) {
  const uint32_t bits = to_bits(x);
  if (x != x) return {0x7fc0};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}
template <>
EFFKERNELS_INLINE Half narrow<Half>(float x) {
  const uint32_t sign = to_bits(x) & 0x80000000u;
  uint32_t bits = to_bits(x) ^ sign;
  if (bits >= 0x47800000u) {  // 65536 and up
    bits = bits > 0x7f800000u ? 0x7e00u : 0x7c00u;
  } else if (bits < 0x38800000u) {  // below the smallest normal number: the addition rounds
    bits = to_bits(from_bits(bits) + 0.5f) - 0x3f000000u;
  } else {
    bits = (bits + 0xc8000fffu + ((bits >> 13) & 1u)) >> 13;
  }
  return {static_cast<uint16_t>(bits | (sign >> 16))};
}

#if defined(__AVX512F__)

EFFKERNELS_INLINE Vec broadcast(float x) { return {_mm512_set1_ps(x)}; }
EFFKERNELS_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
EFFKERNELS_INLINE Vec square_root(Vec a) { return {_mm512_sqrt_ps(a.v)}; }

// 1 / a within 2^-14 of it, if that is at least 2^-126; 0 for infinity.
EFFKERNELS_INLINE Vec rough_reciprocal(Vec a) { return {_mm512_rcp14_ps(a.v)}; }
// a - floor(a); 0 for infinities.
EFFKERNELS_INLINE Vec fraction(Vec a) {
  return {_mm512_reduce_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
}
// a * 2^floor(n), or infinity where that is too large.
EFFKERNELS_INLINE Vec scale_by_power(Vec a, Vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }

// max and min return `b` if either is NaN.
EFFKERNELS_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
EFFKERNELS_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }

// 2^(n / kPowers) for the integer n in the low bits of `shifted`, see exponential_of_minus().
EFFKERNELS_INLINE Vec power_of_two(Vec shifted) {
  const __m512i n = _mm512_castps_si512(shifted.v);
  const __m512 entry = _mm512_permutexvar_ps(n, _mm512_load_ps(kPowerTable.entries));
  return {_mm512_castsi512_ps(
      _mm512_add_epi32(_mm512_castps_si512(entry), _mm512_slli_epi32(n, 23 - kPowersLog2)))};
}

EFFKERNELS_INLINE float sum(Vec a) { return _mm512_reduce_add_ps(a.v); }

// Of two bfloat16 in each lane, the one in the lower or in the upper half.
EFFKERNELS_INLINE Vec lower_half(Vec a) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a.v), 16))};
}
EFFKERNELS_INLINE Vec upper_half(Vec a) {
  return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(-65536)))};
}

EFFKERNELS_INLINE __mmask16 first(int count) { return static_cast<__mmask16>((1u << count) - 1u); }

EFFKERNELS_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
EFFKERNELS_INLINE Vec load(const float* p, int count) { return {_mm512_maskz_loadu_ps(first(count), p)}; }
EFFKERNELS_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
EFFKERNELS_INLINE void store(float* p, Vec a, int count) { _mm512_mask_storeu_ps(p, first(count), a.v); }

EFFKERNELS_INLINE Vec widen(const Half*, __m256i bits) { return {_mm512_cvtph_ps(bits)}; }
EFFKERNELS_INLINE Vec widen(const BFloat16*, __m256i bits) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
EFFKERNELS_INLINE __m256i narrow(const Half*, Vec a) {
  return _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
EFFKERNELS_INLINE __m256i narrow(const BFloat16*, Vec a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  const __m512i whole = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc00000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(whole, 16));
}

template <class T>
EFFKERNELS_INLINE Vec load(const T* p) {
  return widen(p, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
template <class T>
EFFKERNELS_INLINE Vec load(const T* p, int count) {
  return widen(p, _mm256_maskz_loadu_epi16(first(count), p));
}
template <class T>
EFFKERNELS_INLINE void store(T* p, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(p, a));
}
template <class T>
EFFKERNELS_INLINE void store(T* p, Vec a, int count) {
  _mm256_mask_storeu_epi16(p, first(count), narrow(p, a));
}

#elif defined(__AVX2__)

EFFKERNELS_INLINE Vec broadcast(float x) { return {_mm256_set1_ps(x)}; }
EFFKERNELS_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
EFFKERNELS_INLINE Vec square_root(Vec a) { return {_mm256_sqrt_ps(a.v)}; }
EFFKERNELS_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
EFFKERNELS_INLINE Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }

EFFKERNELS_INLINE Vec power_of_two(Vec shifted) {
  const __m256i n = _mm256_castps_si256(shifted.v);
  const __m256 entry = _mm256_permutevar8x32_ps(_mm256_load_ps(kPowerTable.entries), n);
  return {_mm256_castsi256_ps(
      _mm256_add_epi32(_mm256_castps_si256(entry), _mm256_slli_epi32(n, 23 - kPowersLog2)))};
}

EFFKERNELS_INLINE Vec lower_half(Vec a) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.v), 16))};
}
EFFKERNELS_INLINE Vec upper_half(Vec a) {
  return {_mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(a.v), _mm256_set1_epi32(-65536)))};
}

EFFKERNELS_INLINE float sum(Vec a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

EFFKERNELS_INLINE __m256i first(int count) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane);
}

EFFKERNELS_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
EFFKERNELS_INLINE Vec load(const float* p, int count) { return {_mm256_maskload_ps(p, first(count))}; }
EFFKERNELS_INLINE void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
EFFKERNELS_INLINE void store(float* p, Vec a, int count) { _mm256_maskstore_ps(p, first(count), a.v); }

EFFKERNELS_INLINE Vec widen(const Half*, __m128i bits) { return {_mm256_cvtph_ps(bits)}; }
EFFKERNELS_INLINE Vec widen(const BFloat16*, __m128i bits) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
}
EFFKERNELS_INLINE __m128i narrow(const Half*, Vec a) {
  return _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
EFFKERNELS_INLINE __m128i narrow(const BFloat16*, Vec a) {
  const __m256i bits = _mm256_castps_si256(a.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q));
  const __m256i whole = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc00000), nan);
  const __m256i high = _mm256_srli_epi32(whole, 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}

template <class T>
EFFKERNELS_INLINE Vec load(const T* p) {
  return widen(p, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
template <class T>
EFFKERNELS_INLINE Vec load(const T* p, int count) {
  T some[kLanes] = {};
  for (int i = 0; i < count; ++i) some[i] = p[i];
  return load(some);
}
template <class T>
EFFKERNELS_INLINE void store(T* p, Vec a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(p, a));
}
template <class T>
EFFKERNELS_INLINE void store(T* p, Vec a, int count) {
  T some[kLanes];
  store(some, a);
  for (int i = 0; i < count; ++i) p[i] = some[i];
}

#else

EFFKERNELS_INLINE Vec broadcast(float x) { return {Native{x, x, x, x}}; }
// Fused if the processor supports it; the compiler is told to contract.
EFFKERNELS_INLINE Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
EFFKERNELS_INLINE Vec square_root(Vec a) {
  Native root;
  for (int i = 0; i < kLanes; ++i) root[i] = __builtin_sqrtf(a.v[i]);
  return {root};
}

EFFKERNELS_INLINE Vec select(Integers condition, Native yes, Native no) {
  return {reinterpret_cast<Native>((condition & reinterpret_cast<Integers>(yes)) |
                                   (~condition & reinterpret_cast<Integers>(no)))};
}
EFFKERNELS_INLINE Vec max(Vec a, Vec b) { return select(a.v > b.v, a.v, b.v); }
EFFKERNELS_INLINE Vec min(Vec a, Vec b) { return select(a.v < b.v, a.v, b.v); }

EFFKERNELS_INLINE Vec power_of_two(Vec shifted) {
  const Integers n = reinterpret_cast<Integers>(shifted.v);
  Native entry;
  for (int i = 0; i < kLanes; ++i) entry[i] = kPowerTable.entries[n[i] & (kPowers - 1)];
  return {reinterpret_cast<Native>(reinterpret_cast<Integers>(entry) + (n << (23 - kPowersLog2)))};
}

EFFKERNELS_INLINE float sum(Vec a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }

template <class T>
EFFKERNELS_INLINE Vec load(const T* p) {
  Native lanes;
  if constexpr (sizeof(T) == sizeof(float)) {
    std::memcpy(&lanes, p, sizeof lanes);
  } else {
    for (int i = 0; i < kLanes; ++i) lanes[i] = widen(p[i]);
  }
  return {lanes};
}
template <class T>
EFFKERNELS_INLINE Vec load(const T* p, int count) {
  T some[kLanes] = {};
  for (int i = 0; i < count; ++i) some[i] = p[i];
  return load(some);
}
template <class T>
EFFKERNELS_INLINE void store(T* p, Vec a) {
  if constexpr (sizeof(T) == sizeof(float)) {
    std::memcpy(p, &a.v, sizeof a.v);
  } else {
    for (int i = 0; i < kLanes; ++i) p[i] = narrow<T>(a.v[i]);
  }
}
template <class T>
EFFKERNELS_INLINE void store(T* p, Vec a, int count) {
  T some[kLanes];
  store(some, a);
  for (int i = 0; i < count; ++i) p[i] = some[i];
}

#endif

// Makes the compiler forget how an address was computed. Otherwise it would keep several addresses at
// constant distances, or their offsets, on the stack where registers are few. An instruction can itself add
// one or two strides to a forgotten address.
template <class T>
EFFKERNELS_INLINE void forget(T*& address) {
  asm("" : "+r"(address));
}

// Four neighbouring columns of kLanes rows, `stride` apart: lane i of columns[c] is p[i * stride + c].
EFFKERNELS_INLINE void load_columns(const float* p, int64_t stride, Vec (&columns)[4]) {
#if defined(__AVX512F__)
  // rows j, 4 + j, 8 + j and 12 + j side by side, then 4 x 4 transpositions within the 128-bit lanes
  __m512 row[4];
  for (int j = 0; j < 4; ++j, p += stride) {
    row[j] = _mm512_castps128_ps512(_mm_loadu_ps(p));
    row[j] = _mm512_mask_broadcast_f32x4(row[j], 0x00f0, _mm_loadu_ps(p + 4 * stride));
    row[j] = _mm512_mask_broadcast_f32x4(row[j], 0x0f00, _mm_loadu_ps(p + 8 * stride));
    row[j] = _mm512_mask_broadcast_f32x4(row[j], 0xf000, _mm_loadu_ps(p + 12 * stride));
  }
  const __m512 a = _mm512_unpacklo_ps(row[0], row[1]), b = _mm512_unpackhi_ps(row[0], row[1]);
  const __m512 c = _mm512_unpacklo_ps(row[2], row[3]), d = _mm512_unpackhi_ps(row[2], row[3]);
  columns[0].v = _mm512_shuffle_ps(a, c, 0x44);
  columns[1].v = _mm512_shuffle_ps(a, c, 0xee);
  columns[2].v = _mm512_shuffle_ps(b, d, 0x44);
  columns[3].v = _mm512_shuffle_ps(b, d, 0xee);
#elif defined(__AVX2__)
  __m256 row[4];
  const float* q = p + 4 * stride;
  forget(q);
  for (int j = 0; j < 4; ++j, p += stride, q += stride) {
    row[j] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(q), 1);
  }
  const __m256 a = _mm256_unpacklo_ps(row[0], row[1]), b = _mm256_unpackhi_ps(row[0], row[1]);
  const __m256 c = _mm256_unpacklo_ps(row[2], row[3]), d = _mm256_unpackhi_ps(row[2], row[3]);
  columns[0].v = _mm256_shuffle_ps(a, c, 0x44);
  columns[1].v = _mm256_shuffle_ps(a, c, 0xee);
  columns[2].v = _mm256_shuffle_ps(b, d, 0x44);
  columns[3].v = _mm256_shuffle_ps(b, d, 0xee);
#else
  for (int c = 0; c < 4; ++c, ++p) columns[c].v = Native{p[0], p[stride], p[2 * stride], p[3 * stride]};
#endif
}

// A whole vector, or only its first `count` lanes.
template <class T>
EFFKERNELS_INLINE Vec load_up_to(const T* p, int count) {
  return count >= kLanes ? load(p) : load(p, count);
}
template <class T>
EFFKERNELS_INLINE void store_up_to(T* p, Vec a, int count) {
  if (count >= kLanes) {
    store(p, a);
  } else {
    store(p, a, count);
  }
}

}  // namespace effkernels::cpu::EFFKERNELS_ISA
