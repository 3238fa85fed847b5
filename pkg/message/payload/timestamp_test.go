package payload_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f2mesh/f2mesh/pkg/message/payload"
)

func parseTime(t require.TestingT, p *payload.Parser, text string) (time.Time, error) {
	got, err := p.Parse(on(t, "tele/strike-1"), []byte(`{"status":true,"timestamp":"`+text+`"}`))
	return got.Time, err
}

func TestTimestamp(t *testing.T) {
	zone := time.FixedZone("", 2*60*60)
	for _, tc := range []struct {
		text string
		want time.Time
	}{
		{"2026-03-01 10:00:00", date(2026, 3, 1, 8, 0, 0, 0)},
		{"2026-03-01 10:00:00.5", date(2026, 3, 1, 8, 0, 0, 500e6)},
		{"2026-03-01 10:00:00.123456", date(2026, 3, 1, 8, 0, 0, 123456e3)},
		{"2026-03-01 10:00:00.123456789", date(2026, 3, 1, 8, 0, 0, 123456789)},
		{"2026-03-01T10:00:00", date(2026, 3, 1, 8, 0, 0, 0)},
		{"2026-03-01T10:00:00Z", date(2026, 3, 1, 10, 0, 0, 0)},
		{"2026-03-01t10:00:00.25z", date(2026, 3, 1, 10, 0, 0, 250e6)},
		{"2026-03-01T10:00:00-05:30", date(2026, 3, 1, 15, 30, 0, 0)},
		{"2026-03-01 10:00:00+00:00", date(2026, 3, 1, 10, 0, 0, 0)},
		{"2024-02-29 00:00:00Z", date(2024, 2, 29, 0, 0, 0, 0)},
		{"2000-02-29 00:00:00Z", date(2000, 2, 29, 0, 0, 0, 0)},
		{"1970-01-01 00:00:00Z", date(1970, 1, 1, 0, 0, 0, 0)},
		{"2200-12-31 23:59:59.999999999Z", date(2200, 12, 31, 23, 59, 59, 999999999)},
		{`2026-03-01\u002010:00:00`, date(2026, 3, 1, 8, 0, 0, 0)},
	} {
		t.Run(tc.text, func(t *testing.T) {
			got, err := parseTime(t, &payload.Parser{Zone: zone}, tc.text)
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

func TestTimestampRefuses(t *testing.T) {
	for _, text := range []string{
		"", "now", "2026-03-01", "2026-03-01 10:00", "2026-3-1 10:00:00", "26-03-01 10:00:00",
		"2026-03-01  10:00:00", "2026-03-01_10:00:00", "2026/03/01 10:00:00", "2026-03-01 10.00.00",
		"2026-00-01 10:00:00", "2026-13-01 10:00:00", "2026-03-00 10:00:00", "2026-03-32 10:00:00",
		"2026-04-31 10:00:00", "2026-02-29 10:00:00", "2100-02-29 10:00:00",
		"2026-03-01 24:00:00", "2026-03-01 10:60:00", "2026-03-01 23:59:60",
		"2026-03-01 10:00:00.", "2026-03-01 10:00:00.1234567890", "2026-03-01 10:00:00,5", "2026-03-01 10:00:00.5x",
		"2026-03-01 10:00:00 Z", "2026-03-01 10:00:00+2", "2026-03-01 10:00:00+0200", "2026-03-01 10:00:00+24:00",
		"2026-03-01 10:00:00+02:60", "2026-03-01 10:00:00+02:00x", "2026-03-01 10:00:00*02:00", "2026-03-01 10:00:00+-2:00",
		" 2026-03-01 10:00:00", "2026-03-01 10:00:00 ", "+026-03-01 10:00:00", "2026-03-01 10:00:-1", "٢٠٢٦-03-01 10:00:00",
		"1969-12-31 23:59:59", "2201-01-01 00:00:00", "1970-01-01 00:00:00+00:01", "2200-12-31 23:59:59-00:01", "0000-01-01 00:00:00",
	} {
		t.Run(text, func(t *testing.T) {
			_, err := parseTime(t, new(payload.Parser), text)
			requireReason(t, err, payload.ReasonBadTimestamp)
		})
	}
}

// TestTimestampInvertsFormat compares with the time package over all accepted times, in a zone
// that changes its offset.
func TestTimestampInvertsFormat(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		zone = time.FixedZone("CET", 60*60)
	}
	p := payload.Parser{Zone: zone}
	rapid.Check(t, func(t *rapid.T) {
		seconds := rapid.Int64Range(0, 7289654399).Draw(t, "seconds")
		want := time.Unix(seconds, rapid.Int64Range(0, 999999999).Draw(t, "nanoseconds")).UTC()
		layout := rapid.SampledFrom([]string{
			time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02T15:04:05.000000000Z07:00",
			"2006-01-02 15:04:05.999999999",
		}).Draw(t, "layout")
		in := time.FixedZone("", 60*rapid.IntRange(-23*60, 23*60).Draw(t, "minutes"))
		if layout[len(layout)-1] == '9' {
			in = zone
			want = time.Date(want.Year(), want.Month(), want.Day(), want.Hour(), want.Minute(), want.Second(), want.Nanosecond(), zone)
			if want.Unix() < 0 {
				t.Skip("before 1970")
			}
		}
		text := want.In(in).Format(layout)
		got, err := parseTime(t, &p, text)
		require.NoError(t, err, text)
		require.Equal(t, time.UTC, got.Location())
		require.True(t, want.Equal(got), "%s: want %s, got %s", text, want, got)
	})
}

// TestAmbiguousLocalTime covers the hour that exists twice and the one that is skipped: the
// time nearest to the receive time counts.
func TestAmbiguousLocalTime(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	lordHowe, err := time.LoadLocation("Australia/Lord_Howe") // by half an hour
	require.NoError(t, err)
	apia, err := time.LoadLocation("Pacific/Apia") // left out a day in 2011
	require.NoError(t, err)
	for _, tc := range []struct {
		name, text string
		zone       *time.Location
		received   time.Time
		want       time.Time
	}{
		{"first of two", "2026-10-25 02:30:00", berlin, date(2026, 10, 25, 0, 30, 5, 0), date(2026, 10, 25, 0, 30, 0, 0)},
		{"second of two", "2026-10-25 02:30:00.5", berlin, date(2026, 10, 25, 1, 30, 5, 0), date(2026, 10, 25, 1, 30, 0, 500e6)},
		{"received long before", "2026-10-25 02:30:00", berlin, date(2026, 10, 24, 0, 0, 0, 0), date(2026, 10, 25, 0, 30, 0, 0)},
		{"received long after", "2026-10-25 02:30:00", berlin, date(2026, 10, 27, 0, 0, 0, 0), date(2026, 10, 25, 1, 30, 0, 0)},
		{"just before the change", "2026-10-25 01:59:59", berlin, date(2026, 10, 27, 0, 0, 0, 0), date(2026, 10, 24, 23, 59, 59, 0)},
		{"just after the hour", "2026-10-25 03:00:00", berlin, date(2026, 10, 24, 0, 0, 0, 0), date(2026, 10, 25, 2, 0, 0, 0)},
		{"start of the hour", "2026-10-25 02:00:00", berlin, date(2026, 10, 25, 1, 0, 1, 0), date(2026, 10, 25, 1, 0, 0, 0)},
		{"an offset decides", "2026-10-25 02:30:00+02:00", berlin, date(2026, 10, 25, 1, 30, 5, 0), date(2026, 10, 25, 0, 30, 0, 0)},
		{"left out, winter time", "2026-03-29 02:30:00", berlin, date(2026, 3, 29, 1, 30, 5, 0), date(2026, 3, 29, 1, 30, 0, 0)},
		{"left out, summer time", "2026-03-29 02:30:00", berlin, date(2026, 3, 29, 0, 30, 5, 0), date(2026, 3, 29, 0, 30, 0, 0)},
		{"half an hour, first", "2026-04-05 01:45:00", lordHowe, date(2026, 4, 4, 14, 45, 5, 0), date(2026, 4, 4, 14, 45, 0, 0)},
		{"half an hour, second", "2026-04-05 01:45:00", lordHowe, date(2026, 4, 4, 15, 15, 5, 0), date(2026, 4, 4, 15, 15, 0, 0)},
		{"a day left out", "2011-12-30 12:00:00", apia, date(2011, 12, 30, 22, 0, 0, 0), date(2011, 12, 30, 22, 0, 0, 0)},
		{"an ordinary day", "2026-07-01 12:00:00", berlin, date(2030, 7, 1, 0, 0, 0, 0), date(2026, 7, 1, 10, 0, 0, 0)},
		{"UTC", "2026-10-25 02:30:00", time.UTC, date(2026, 10, 25, 1, 30, 5, 0), date(2026, 10, 25, 2, 30, 0, 0)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := payload.Parser{Zone: tc.zone}
			got, err := p.ParseAt(on(t, "tele/strike-1"), []byte(`{"status":true,"timestamp":"`+tc.text+`"}`), tc.received)
			require.NoError(t, err)
			require.Equal(t, tc.want, got.Time)
		})
	}
}

// TestLocalTimeOfRecentMessage: the local time of a message that is sent at once always gives
// its time, at any time of many years.
func TestLocalTimeOfRecentMessage(t *testing.T) {
	for _, name := range []string{"Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "America/Sao_Paulo"} {
		zone, err := time.LoadLocation(name)
		require.NoError(t, err)
		p := payload.Parser{Zone: zone}
		wrong := 0
		rapid.Check(t, func(t *rapid.T) {
			year := rapid.IntRange(1990, 2037).Draw(t, "year")
			want := date(year, 1, 1, 0, 0, rapid.IntRange(0, 366*86400).Draw(t, "second"), 0)
			if start, end := want.In(zone).ZoneBounds(); rapid.Bool().Draw(t, "at a change") && !start.IsZero() && !end.IsZero() {
				near := rapid.SampledFrom([]time.Time{start, end}).Draw(t, "change")
				want = near.Add(time.Duration(rapid.IntRange(-7200, 7200).Draw(t, "seconds")) * time.Second).UTC()
			}
			body := []byte(`{"status":true,"timestamp":"` + want.In(zone).Format(time.DateTime) + `"}`)
			got, err := p.ParseAt(on(t, "tele/strike-1"), body, want.Add(time.Duration(rapid.IntRange(0, 600).Draw(t, "later"))*time.Second))
			require.NoError(t, err)
			require.Equal(t, want, got.Time)
			if got, err = p.Parse(on(t, "tele/strike-1"), body); err != nil || !got.Time.Equal(want) {
				wrong++
			}
		})
		t.Log(name, "without the receive time", wrong, "were wrong")
	}
}

// TestCalendar covers every day of the years from 1970 to 2200, and as many days that do not
// exist, compared with time.Date.
func TestCalendar(t *testing.T) {
	var p payload.Parser
	for year := 1970; year <= 2200; year++ {
		for month := 1; month <= 12; month++ {
			for day := 27; day <= 32; day++ {
				got, err := parseTime(t, &p, fmt.Sprintf("%04d-%02d-%02d 00:00:00", year, month, day))
				want := date(year, month, day, 0, 0, 0, 0)
				if want.Day() != day {
					requireReason(t, err, payload.ReasonBadTimestamp)
					continue
				}
				require.NoError(t, err)
				require.Equal(t, want, got)
			}
		}
	}
}
