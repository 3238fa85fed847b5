package frame

import (
	"math"
	"math/big"
	"strconv"
)

// powers are the powers of ten that a float64 holds exactly.
var powers = [MaxDecimals + 1]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// maxExact is the integer up to which a float64 holds all integers.
const maxExact = 1 << 53

// scale returns the float64 nearest to x / 10^decimals: x and the power are
// exact, and one IEEE 754 operation is correctly rounded.
func scale(x float64, decimals int) float64 {
	if decimals < 0 {
		return x * powers[-decimals]
	}
	return x / powers[decimals]
}

// scaleInteger returns the float64 nearest to ±magnitude / 10^decimals.
func scaleInteger(negative bool, magnitude uint64, decimals int) float64 {
	var x float64
	if magnitude <= maxExact || decimals == 0 {
		x = scale(float64(magnitude), decimals)
	} else {
		x = scaleLarge(magnitude, decimals)
	}
	if negative {
		return -x
	}
	return x
}

// scaleLarge is for integers that a float64 does not hold: strconv rounds the decimal number
// once, and correctly.
func scaleLarge(magnitude uint64, decimals int) float64 {
	var buf [32]byte
	b := strconv.AppendUint(buf[:0], magnitude, 10)
	b = strconv.AppendInt(append(b, 'e'), int64(-decimals), 10)
	x, _ := strconv.ParseFloat(string(b), 64) // never fails: 20 digits and an exponent of 22
	return x
}

// unscaleInteger returns the integer up to limit that scaleInteger turns into x, or the nearest
// one if there is none. x must not be negative.
func unscaleInteger(x float64, decimals int, limit uint64) (uint64, bool) {
	product := scale(x, -decimals)
	if product < maxExact {
		n := uint64(math.RoundToEven(product))
		if n <= limit && scaleInteger(false, n, decimals) == x {
			return n, true
		}
	}
	if product >= 1<<65 {
		return 0, false
	}
	n := nearestInteger(x, decimals)
	for _, candidate := range [...]uint64{n, n - 1, n + 1, limit} {
		if candidate <= limit && scaleInteger(false, candidate, decimals) == x {
			return candidate, true
		}
	}
	return n, n <= limit
}

// nearestInteger returns the integer nearest to x * 10^decimals, at most the largest uint64. The
// precision is enough for any exact product, and to round a quotient correctly.
func nearestInteger(x float64, decimals int) uint64 {
	const precision = 256
	z := new(big.Float).SetPrec(precision).SetFloat64(x)
	if decimals < 0 {
		z.Quo(z, new(big.Float).SetFloat64(powers[-decimals]))
	} else {
		z.Mul(z, new(big.Float).SetFloat64(powers[decimals]))
	}
	n, _ := z.Add(z, big.NewFloat(0.5)).Uint64()
	return n
}

// unscaleFloat returns the float64 that scale turns into x, or the nearest one if there is none.
// Multiplying back is off by at most two float64 steps.
func unscaleFloat(x float64, decimals int) float64 {
	raw := scale(x, -decimals)
	below, above := math.Nextafter(raw, math.Inf(-1)), math.Nextafter(raw, math.Inf(1))
	for _, candidate := range [...]float64{
		raw, below, above, math.Nextafter(below, math.Inf(-1)), math.Nextafter(above, math.Inf(1)),
	} {
		if scale(candidate, decimals) == x && !math.IsInf(candidate, 0) {
			return candidate
		}
	}
	return raw
}
