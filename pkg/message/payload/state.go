package payload

import (
	"github.com/go-json-experiment/json/jsontext"
)

// appendName appends the name of the current member to a state.
func (s *scanner) appendName(state []byte) ([]byte, error) {
	separator := byte(',')
	if len(state) == 0 {
		separator = '{'
	}
	state, err := jsontext.AppendQuote(append(state, separator), s.name)
	if err != nil {
		return nil, refuse(ReasonBadUTF8, "a name that is not UTF-8")
	}
	return append(state, ':'), nil
}

// appendValue appends the next value to dst without white space. depth is the number of objects
// and arrays around it.
func (s *scanner) appendValue(dst []byte, depth int) ([]byte, error) {
	switch s.decoder.PeekKind() {
	case jsontext.KindBeginObject:
		return s.appendNested(dst, depth, jsontext.KindEndObject)
	case jsontext.KindBeginArray:
		return s.appendNested(dst, depth, jsontext.KindEndArray)
	}
	return s.appendScalar(dst)
}

// appendNested appends an object or an array, depending on end.
func (s *scanner) appendNested(dst []byte, depth int, end jsontext.Kind) ([]byte, error) {
	if depth == MaxDepth {
		return nil, refuse(ReasonTooDeep, "nested deeper than %d", MaxDepth)
	}
	begin, err := s.decoder.ReadToken()
	if err != nil {
		return nil, s.syntaxError(err)
	}
	dst = append(dst, byte(begin.Kind()))
	for n := 0; s.decoder.PeekKind() != end; n++ {
		if n == MaxMembers {
			return nil, refuse(ReasonTooManyMembers, "more than %d members in one object or array", MaxMembers)
		}
		if n > 0 {
			dst = append(dst, ',')
		}
		if end == jsontext.KindEndObject {
			if dst, err = s.appendScalar(dst); err != nil {
				return nil, err
			}
			dst = append(dst, ':')
		}
		if dst, err = s.appendValue(dst, depth+1); err != nil {
			return nil, err
		}
	}
	if _, err := s.decoder.ReadToken(); err != nil {
		return nil, s.syntaxError(err)
	}
	return append(dst, byte(end)), nil
}

// appendScalar appends a string, number, boolean or null unchanged.
func (s *scanner) appendScalar(dst []byte) ([]byte, error) {
	value, err := s.decoder.ReadValue()
	if err != nil {
		return nil, s.syntaxError(err)
	}
	switch value.Kind() {
	case jsontext.KindString:
		_, err = s.unquote(value)
	case jsontext.KindNumber:
		err = checkNumber(value)
	}
	if err != nil {
		return nil, err
	}
	return append(dst, value...), nil
}
