// Package device tells from a User-Agent header, which anybody may write anything into, what a client is.
package device

import (
	"strings"

	"github.com/mileusna/useragent"
)

// browsers are the names that the parser gives to the browsers of people.
var browsers = map[string]bool{
	useragent.Opera: true, useragent.OperaMini: true, useragent.OperaTouch: true, useragent.Chrome: true,
	useragent.Firefox: true, useragent.InternetExplorer: true, useragent.Safari: true, useragent.Edge: true,
	useragent.Vivaldi: true, useragent.SamsungBrowser: true, useragent.BlackBerry: true, useragent.NetFront: true,
	useragent.FacebookApp: true, useragent.InstagramApp: true, useragent.TiktokApp: true, "Android browser": true,
	"Huawei Browser": true, "Miui Browser": true,
}

// systems are the names that the parser gives to the systems of people's devices, and those for people.
var systems = map[string]string{
	useragent.Windows: "Windows", useragent.WindowsPhone: "Windows Phone", useragent.Android: "Android",
	useragent.MacOS: "macOS", useragent.IOS: "iOS", useragent.Linux: "Linux", useragent.FreeBSD: "FreeBSD",
	useragent.ChromeOS: "ChromeOS", useragent.CrOS: "ChromeOS", useragent.BlackBerry: "BlackBerry", useragent.Harmony: "Harmony",
}

// maxUserAgent is how much of a user agent is looked at, in bytes: more than any browser sends.
const maxUserAgent = 1024

// UnknownBrowser reports whether a User-Agent header is not that of a known browser: of a command-line tool, a library
// or a robot, or empty.
func UnknownBrowser(userAgent string) bool {
	userAgent = userAgent[:min(len(userAgent), maxUserAgent)]
	ua := useragent.Parse(userAgent)
	if ua.Bot {
		return true
	}
	// Browsers made of another one put their name beside its: they say Mozilla, Chrome and Safari as well.
	return !browsers[ua.Name] && !(strings.HasPrefix(userAgent, "Mozilla/5.0 (") && strings.Contains(userAgent, " Safari/"))
}

// Name is the browser and the system of a client, "Firefox on Linux", in words of this package alone, whatever the header
// says besides. What is not known is left out; it is empty when neither is.
func Name(userAgent string) string {
	ua := useragent.Parse(userAgent[:min(len(userAgent), maxUserAgent)])
	browser, system := "", systems[ua.OS]
	if browsers[ua.Name] {
		browser = ua.Name
	}
	if browser == "" || system == "" {
		return browser + system
	}
	return browser + " on " + system
}
