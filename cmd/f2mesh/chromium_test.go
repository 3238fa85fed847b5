package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
)

// chromium is a browser without a screen.
type chromium struct {
	context.Context
	base string

	mu       sync.Mutex
	problems []string // errors that pages wrote to the console, and what their policy forbids
}

// startChromium starts a browser with a profile of its own, at a console.
func (m *testMesh) startChromium(t *testing.T) *chromium {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		accounttest.SkipMissing(t, errors.New("chromium is not installed: run tools/install chromium"))
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.IgnoreCertErrors, // the mesh's own CA
		chromedp.WSURLReadTimeout(time.Minute))
	allocated, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocated)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 5*time.Minute)
	t.Cleanup(cancel)
	c := &chromium{Context: ctx, base: m.browser(t).address("")}
	chromedp.ListenTarget(ctx, func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			c.note(e.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.APITypeError {
				c.note(fmt.Sprint(e.Args))
			}
		case *log.EventEntryAdded:
			if e.Entry.Level == log.LevelError {
				c.note(e.Entry.Text + " " + e.Entry.URL)
			}
		}
	})
	c.do(t, log.Enable())
	return c
}

func (c *chromium) note(problem string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problems = append(c.problems, problem)
}

// take returns the problems since the last time.
func (c *chromium) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.problems
	c.problems = nil
	return all
}

func (c *chromium) do(t *testing.T, actions ...chromedp.Action) {
	t.Helper()
	require.NoError(t, chromedp.Run(c, actions...))
}

func (c *chromium) open(t *testing.T, path string) {
	t.Helper()
	c.do(t, chromedp.Navigate(c.base+path), chromedp.WaitReady("main"))
}

func (c *chromium) signIn(t *testing.T, name, password string) {
	t.Helper()
	c.open(t, "/sign-in")
	c.do(t, chromedp.SendKeys(`input[name=name]`, name), chromedp.SendKeys(`input[name=password]`, password),
		chromedp.Click(`form.signin button`), chromedp.WaitVisible(`nav[aria-label=Pages]`))
}

// findings are what axe-core finds serious on the open page.
func (c *chromium) findings(t *testing.T) (all []string) {
	t.Helper()
	file, err := os.Open("testdata/axe.min.js.gz")
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	text, err := gzip.NewReader(file)
	require.NoError(t, err)
	axe, err := io.ReadAll(text)
	require.NoError(t, err)
	const run = `axe.run().then(r => JSON.stringify(r.violations.map(v => [v.impact, v.id, v.nodes.map(n => n.html).slice(0, 2).join(" ")])))`
	var found string
	c.do(t, chromedp.Evaluate(string(axe), nil), chromedp.Evaluate(run, &found, func(p *runtime.EvaluateParams) *runtime.EvaluateParams {
		return p.WithAwaitPromise(true)
	}))
	var violations [][3]string
	require.NoError(t, json.Unmarshal([]byte(found), &violations))
	for _, v := range violations {
		if v[0] == "serious" || v[0] == "critical" {
			all = append(all, strings.Join(v[:], ": "))
		}
	}
	return all
}

// looks are how people look at pages.
var looks = []struct {
	name          string
	width, height int64
	scheme        string
}{
	{"light", 1000, 720, "light"},
	{"dark", 1000, 720, "dark"},
	{"phone", 390, 844, "light"},
}

// shoot writes a picture of the open page, if somebody wants pictures.
func (c *chromium) shoot(t *testing.T, name string) {
	t.Helper()
	dir := os.Getenv("F2MESH_SCREENSHOTS")
	if dir == "" {
		return
	}
	var picture []byte
	c.do(t, chromedp.CaptureScreenshot(&picture))
	full, err := png.Decode(bytes.NewReader(picture))
	require.NoError(t, err)
	// A few colours make a small file.
	small := image.NewPaletted(full.Bounds(), paletteOf(full))
	draw.Draw(small, full.Bounds(), full, image.Point{}, draw.Src)
	var b bytes.Buffer
	require.NoError(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, small))
	require.NoError(t, os.WriteFile(filepath.Join(dir, name+".png"), b.Bytes(), 0o644))
}

// paletteOf are the colours that a picture has most of.
func paletteOf(picture image.Image) color.Palette {
	counts := map[color.Color]int{}
	for y := picture.Bounds().Min.Y; y < picture.Bounds().Max.Y; y++ {
		for x := picture.Bounds().Min.X; x < picture.Bounds().Max.X; x++ {
			counts[picture.At(x, y)]++
		}
	}
	all := slices.SortedFunc(maps.Keys(counts), func(a, b color.Color) int { return counts[b] - counts[a] })
	return all[:min(len(all), 128)]
}

// TestConsolePages opens every page in Chromium.
func TestConsolePages(t *testing.T) {
	t.Parallel()
	m := startMesh(t, func(c *meshConfig) { c.Health.Interval = 200 * time.Millisecond })
	m.publishOneOfEach(t)
	letter, alarm := m.letterOf(t), m.alarmOf(t, string(mac))
	device := m.device(t, mac)
	reading := func(second int, hex string) {
		publish(t, device, fmt.Sprintf("tele/f2-%s/sensor-mode/J1/sensor-1", mac), fmt.Sprintf(`{"timestamp":"%s","data":"%s"}`,
			time.Now().UTC().Add(time.Duration(second-60)*time.Second).Format(time.DateTime), hex))
	}
	reading(0, "01 03 0C 09 F8 13 88 02 BC 00 00 00 00 00 00 18 28")
	eventually(t, func() bool { return m.count(t, "SELECT count(*) FROM measurement") > 0 }, "no reading")
	c := m.startChromium(t)
	c.signIn(t, "admin", m.passwordOf(t, "admin"))
	require.Empty(t, c.take(), "the sign-in page")
	pages := []struct{ name, path, shows string }{
		{"mesh", "/", "decoded messages a second"},
		{"alarms", "/alarms", "door-held-open"},
		{"alarm", "/alarms/" + alarm, "A door has been open"},
		{"fleet", "/fleet", string(mac)},
		{"controller", "/fleet/" + string(mac), "25.52"},
		{"dead-letters", "/dead", "decoder"},
		{"dead-letter", fmt.Sprintf("/dead/%d", letter), "byte   0"},
		{"ledger", "/ledger", "rows written"},
		{"audit", "/audit", "issue"},
		{"secrets", "/secrets", "nats_console_password"},
		{"failure", "/nowhere", "There is no such page."},
	}
	for _, look := range looks {
		media := emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: look.scheme}})
		c.do(t, media, emulation.SetDeviceMetricsOverride(look.width, look.height, 1, look.name == "phone"))
		for _, page := range pages {
			c.open(t, page.path)
			var text string
			c.do(t, chromedp.Text("main", &text))
			assert.Contains(t, text, page.shows, "%s, %s", page.name, look.name)
			if page.name == "controller" {
				c.do(t, chromedp.WaitVisible("details.chart canvas"))
			}
			if page.name == "mesh" || page.name == "controller" {
				c.do(t, chromedp.WaitVisible(`//p[@id="live" and text()="live"]`))
			}
			assert.Empty(t, c.findings(t), "%s, %s", page.name, look.name)
			c.shoot(t, page.name+"-"+look.name)
			problems := c.take()
			if page.name == "failure" { // its status is 404
				problems = slices.DeleteFunc(problems, func(p string) bool { return strings.Contains(p, "404") })
			}
			assert.Empty(t, problems, "%s, %s", page.name, look.name)
		}
	}

	t.Run("a value changes live", func(t *testing.T) {
		c.open(t, "/fleet/"+string(mac))
		c.do(t, chromedp.WaitVisible(`//p[@id="live" and text()="live"]`), chromedp.Evaluate(`window.same = "page"`, nil))
		reading(1, "01 03 0C 0A 5C 13 88 02 BC 00 00 00 00 00 00 9C 34")
		c.do(t, chromedp.WaitVisible(`//td[contains(@class, "value") and contains(text(), "26.52")]`))
		var same string
		c.do(t, chromedp.Evaluate(`window.same`, &same))
		assert.Equal(t, "page", same, "the page was loaded again")
		assert.Empty(t, c.take())
	})
	t.Run("an alarm is acknowledged", func(t *testing.T) {
		c.open(t, "/alarms/"+alarm)
		c.do(t, chromedp.SendKeys(`input[placeholder^=what]`, "seen by a test"), chromedp.Click(`button[value=acknowledge]`),
			chromedp.WaitVisible(`//dd[contains(., "admin") and contains(., "seen by a test")]`))
		assert.Empty(t, c.take())
	})
	t.Run("a strike is confirmed", func(t *testing.T) {
		answers(t, device)
		c.open(t, "/fleet/"+string(mac))
		c.do(t, chromedp.Click(`//form[contains(., "strike-1 at J2")]//input[@type="checkbox"]`), chromedp.Click(`//form[contains(., "strike-1 at J2")]//button`),
			chromedp.WaitVisible(`//p[contains(@class, "outcome")]/strong[text()="confirmed"]`))
		assert.Empty(t, c.findings(t))
		c.shoot(t, "command")
		assert.Empty(t, c.take())
	})
	t.Run("a dead letter is replayed", func(t *testing.T) {
		refused := m.unwired(t, device)
		m.wire(t)
		c.open(t, fmt.Sprintf("/dead/%d", refused))
		c.do(t, chromedp.Click(`//form[@method="post" and starts-with(@action, "/dead")]/button`), chromedp.WaitVisible(`//p[contains(@class, "outcome")]/strong[text()="Replayed"]`))
		assert.Empty(t, c.findings(t))
		c.shoot(t, "replay")
		assert.Empty(t, c.take())
	})
	t.Run("a filter is in the address", func(t *testing.T) {
		c.open(t, "/fleet")
		c.do(t, chromedp.SendKeys("#q", string(mac)), chromedp.WaitVisible(`//p[@role="status" and starts-with(text(), "1 of")]`))
		var address string
		c.do(t, chromedp.Location(&address))
		assert.Contains(t, address, "q="+string(mac))
		assert.Empty(t, c.take())
	})
	t.Run("the controls are seen", func(t *testing.T) {
		c.open(t, "/")
		c.do(t, chromedp.Evaluate(`{const s = document.createElement("script"); s.textContent = "window.ran = true"; document.body.append(s)}`, nil))
		eventually(t, func() bool { return strings.Contains(strings.Join(c.take(), "\n"), "Content Security Policy") }, "no violation was seen")
		c.do(t, chromedp.Evaluate(`document.querySelector("main").insertAdjacentHTML("beforeend", '<button></button>')`, nil))
		assert.NotEmpty(t, c.findings(t), "axe finds nothing wrong with a button without a name")
	})
	t.Run("signing out everywhere", func(t *testing.T) {
		other := m.signedIn(t, "admin")
		code, _, _ := other.ask(t, "GET", "/", nil)
		require.Equal(t, 200, code)
		c.open(t, "/")
		c.do(t, chromedp.Click("details.person summary"), chromedp.Click(`button[name=everywhere]`), chromedp.WaitVisible("form.signin"))
		code, _, _ = other.ask(t, "GET", "/", nil)
		assert.Equal(t, 401, code)
	})
}
