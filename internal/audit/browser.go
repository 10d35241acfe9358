package audit

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

// maxUserAgent is how much of a user agent is looked at, in bytes: more than any browser sends.
const maxUserAgent = 1024

// UnknownBrowser reports whether a User-Agent header is not that of a known browser: of a command-line tool, a library
// or a robot, or empty.
func UnknownBrowser(userAgent string) bool {
	if len(userAgent) > maxUserAgent {
		userAgent = userAgent[:maxUserAgent]
	}
	ua := useragent.Parse(userAgent)
	if ua.Bot {
		return true
	}
	// Browsers made of another one put their name beside its: they say Mozilla, Chrome and Safari as well.
	return !browsers[ua.Name] && !(strings.HasPrefix(userAgent, "Mozilla/5.0 (") && strings.Contains(userAgent, " Safari/"))
}
