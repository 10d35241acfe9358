package browsertest

import (
	"bytes"
	"fmt"
	"image/png"
	"time"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
)

// ReadQR reads the QR code in the first visible element of a CSS selector, as the camera of a phone would: off the screen.
func (p *Page) ReadQR(css string) string {
	p.t.Helper()
	p.AwaitElement(css)
	deadline := time.Now().Add(patience)
	for {
		text, err := p.readQR(css)
		if err == nil {
			return text
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("browsertest: the QR code in %s cannot be read: %v", css, err)
		}
	}
}

func (p *Page) readQR(css string) (string, error) {
	p.t.Helper()
	p.Await(fmt.Sprintf(`(e => e && (e.tagName !== "IMG" || e.complete && e.naturalWidth > 0))(%s)`, found(css)))
	at := Eval[[]float64](p, fmt.Sprintf(`(() => {
		const r = %s.getBoundingClientRect();
		return [r.left + scrollX, r.top + scrollY, r.width, r.height];
	})()`, found(css)))
	beyond := true
	shot, err := chromedp.Call(p.ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{
		CaptureBeyondViewport: &beyond,
		// A little of what is around it, as a camera sees; larger than life, as somebody holds it close.
		Clip: &page.Viewport{X: max(0, at[0]-10), Y: max(0, at[1]-10), Width: at[2] + 20, Height: at[3] + 20, Scale: 2},
	})
	if err != nil {
		return "", err
	}
	picture, err := png.Decode(bytes.NewReader(shot.Data))
	if err != nil {
		return "", err
	}
	bits, err := gozxing.NewBinaryBitmapFromImage(picture)
	if err != nil {
		return "", err
	}
	code, err := qrcode.NewQRCodeReader().Decode(bits, map[gozxing.DecodeHintType]any{gozxing.DecodeHintType_TRY_HARDER: true})
	if err != nil {
		return "", err
	}
	return code.GetText(), nil
}
