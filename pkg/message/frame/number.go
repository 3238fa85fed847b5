package frame

import "math"

// decodeNumber returns the scaled number for the field's bytes, loaded as u. For floats it may
// be NaN or infinite.
func (f Field) decodeNumber(u uint64) (float64, error) {
	switch f.Encoding.kind {
	case kindInt8, kindInt16, kindInt24, kindInt32, kindInt64:
		negative, magnitude := splitSign(u, f.Length)
		return scaleInteger(negative, magnitude, f.Decimals), nil
	case kindFloat32:
		return scale(float64(math.Float32frombits(uint32(u))), f.Decimals), nil //nolint:gosec // bounded, or its low byte is what is meant
	case kindFloat64:
		return scale(math.Float64frombits(u), f.Decimals), nil
	case kindBool:
		u = min(u, 1)
	case kindBit:
		u = u >> f.Encoding.bit & 1
	case kindBCD:
		var ok bool
		if u, ok = fromBCD(u); !ok {
			return 0, refuse(ReasonBadBCD, "a half-byte above 9 in %s", f.place())
		}
	}
	return scaleInteger(false, u, f.Decimals), nil
}

// encodeNumber is the inverse of decodeNumber. It needs the field's old bytes, since BitN changes
// only one bit of them.
func (f Field) encodeNumber(v float64, old uint64) (uint64, error) {
	switch f.Encoding.kind {
	case kindFloat32:
		raw := float32(scale(v, -f.Decimals))
		if math.IsInf(float64(raw), 0) {
			return 0, refuse(ReasonOverflow, "the value is beyond the range of %s", f.Encoding)
		}
		return uint64(math.Float32bits(raw)), nil
	case kindFloat64:
		raw := unscaleFloat(v, f.Decimals)
		if math.IsInf(raw, 0) {
			return 0, refuse(ReasonOverflow, "the value is beyond the range of %s", f.Encoding)
		}
		return math.Float64bits(raw), nil
	}
	u, ok := unscaleInteger(math.Abs(v), f.Decimals, f.limit(v < 0))
	if !ok {
		return 0, refuse(ReasonOverflow, "the value is beyond the range of %s", f.Encoding)
	}
	switch {
	case v < 0:
		return -u, nil
	case f.Encoding.kind == kindBit:
		return old&^(1<<f.Encoding.bit) | u<<f.Encoding.bit, nil
	case f.Encoding.kind == kindBCD:
		return toBCD(u), nil
	}
	return u, nil
}

// limit returns the largest magnitude of a positive or negative number in an integer field.
func (f Field) limit(negative bool) uint64 {
	most := uint64(math.MaxUint64) >> (64 - 8*f.Length)
	switch f.Encoding.kind {
	case kindInt8, kindInt16, kindInt24, kindInt32, kindInt64:
		if negative {
			return most/2 + 1
		}
		return most / 2
	case kindBool, kindBit:
		most = 1
	case kindBCD:
		most = 1
		for range 2 * f.Length {
			most *= 10
		}
		most--
	}
	if negative {
		return 0
	}
	return most
}

// splitSign reads the low bytes of u as two's complement.
func splitSign(u uint64, length int) (negative bool, magnitude uint64) {
	shift := 64 - 8*length
	i := int64(u<<shift) >> shift //nolint:gosec // bounded, or its low byte is what is meant
	if i < 0 {
		return true, -uint64(i) //nolint:gosec // bounded, or its low byte is what is meant
	}
	return false, uint64(i)
}

// fromBCD reads two decimal digits a byte.
func fromBCD(u uint64) (uint64, bool) {
	var n uint64
	for shift := 60; shift >= 0; shift -= 4 {
		digit := u >> shift & 0xf
		if digit > 9 {
			return 0, false
		}
		n = n*10 + digit
	}
	return n, true
}

// toBCD is the inverse of fromBCD for n below 10^16.
func toBCD(n uint64) uint64 {
	var u uint64
	for shift := 0; n > 0; shift += 4 {
		u |= n % 10 << shift
		n /= 10
	}
	return u
}
