package device

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"

func TestUnknownBrowser(t *testing.T) {
	for userAgent, want := range map[string]bool{
		firefox: false,
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36":                                false,
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0":                  false,
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 YaBrowser/24.6.0.0 Safari/537.36":             false,
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15":                          false,
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1":        false,
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/126.0.6478.54 Mobile/15E148 Safari/604.1": false,
		"Opera/9.80 (J2ME/MIDP; Opera Mini/7.1.32052/29.3709; U; en) Presto/2.8.119 Version/11.10":                                                       false,
		"": true, "curl/8.5.0": true, "python-requests/2.31.0": true, "Go-http-client/1.1": true, "PostmanRuntime/7.39.0": true, "Mozilla/5.0": true,
		"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)":                                      true,
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/126.0.0.0 Safari/537.36": true,
		"Apache-HttpClient/4.5.14 (Java/17.0.11)":                                                                       true, strings.Repeat("(", 100_000): true, "\x00\xff": true,
	} {
		if got := UnknownBrowser(userAgent); got != want {
			t.Errorf("%.100q: got %v, want %v", userAgent, got, want)
		}
	}
}

func TestName(t *testing.T) {
	for userAgent, want := range map[string]string{
		firefox: "Firefox on Linux",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0":           "Edge on Windows",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1": "Safari on iOS",
		"Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36":                   "Chrome on Android",
		"": "", "curl/8.5.0": "", "Your funds are frozen, see https://evil.example": "", "https://evil.example/1.0": "",
		"Mozilla/5.0 (Your funds are frozen) see/1.0 https://evil.example Firefox/1.0": "",
		"Mozilla/5.0 (evil.example; Linux) evil.example/1.0":                           "Linux",
	} {
		if got := Name(userAgent); got != want {
			t.Errorf("%q: got %q, want %q", userAgent, got, want)
		}
	}
}

// TestNameHoldsNothingTyped holds that a name is one of few, whatever the header.
func TestNameHoldsNothingTyped(t *testing.T) {
	words := map[string]bool{"": true}
	for browser := range browsers {
		words[browser] = true
		for _, system := range systems {
			words[system], words[browser+" on "+system] = true, true
		}
	}
	part := rapid.SampledFrom([]string{"Mozilla/5.0 (", ") ", "Firefox/1.0", "Android ", "; ", "evil.example", "/", "Linux", "Version/1.0 "})
	rapid.Check(t, func(t *rapid.T) {
		userAgent := strings.Join(rapid.SliceOf(part).Draw(t, "parts"), "") + rapid.String().Draw(t, "rest")
		if name := Name(userAgent); !words[name] {
			t.Errorf("%q becomes %q", userAgent, name)
		}
	})
}
