package email_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/net/idna"

	"ticketing.com/auth/shared/email"
)

// labels returns a domain of n bytes.
func labels(n int) string {
	var b strings.Builder
	for n > 63+4 {
		b.WriteString(strings.Repeat("d", 62) + ".")
		n -= 63
	}
	return b.String() + strings.Repeat("d", n-4) + ".com"
}

func TestParse_NormalForm(t *testing.T) {
	local64 := strings.Repeat("l", 64)
	for _, c := range []struct {
		name, in string
		want     email.Address
	}{
		{"a plain address is its own form", "ann@example.com", "ann@example.com"},
		{"the whole address is lower-cased", "Ann.Lee@EXAMPLE.Com", "ann.lee@example.com"},
		{"spaces around it are removed", "  ann@example.com ", "ann@example.com"},
		{"tabs and line ends around it are removed", "\t\r\nann@example.com\r\n", "ann@example.com"},
		{"Unicode spaces around it are removed", "\u00a0\u3000ann@example.com\u2003", "ann@example.com"},
		{"one byte before the @ is enough", "a@b.co", "a@b.co"},
		{"a tag is part of the address", "ann+tickets@example.com", "ann+tickets@example.com"},
		{"dots in the local part stay", "a.n.n@example.com", "a.n.n@example.com"},
		{"every character of an atom is allowed", "!#$%&'*+-/=?^_`{|}~@example.com", "!#$%&'*+-/=?^_`{|}~@example.com"},
		{"a local part of digits", "007@example.com", "007@example.com"},
		{"a domain of many labels", "ann@a.b.c.d.example.com", "ann@a.b.c.d.example.com"},
		{"a domain with digits and hyphens", "ann@3-com.x1.example", "ann@3-com.x1.example"},
		{"a last label that is not all digits", "ann@example.c0m", "ann@example.c0m"},
		{"a local part of 64 bytes", local64 + "@example.com", email.Address(local64 + "@example.com")},
		{"a label of 63 bytes", "ann@" + strings.Repeat("d", 63) + ".com", email.Address("ann@" + strings.Repeat("d", 63) + ".com")},
		{"254 bytes in all", local64 + "@" + labels(189), email.Address(local64 + "@" + labels(189))},
		{"an international domain becomes its A-label", "ann@bücher.example", "ann@xn--bcher-kva.example"},
		{"an upper-case international domain", "ann@BÜCHER.example", "ann@xn--bcher-kva.example"},
		{"a decomposed international domain", "ann@bu\u0308cher.example", "ann@xn--bcher-kva.example"},
		{"an A-label stays", "ann@xn--bcher-kva.example", "ann@xn--bcher-kva.example"},
		{"an A-label is lower-cased", "ann@XN--BCHER-KVA.example", "ann@xn--bcher-kva.example"},
		{"an international top-level domain", "ann@пример.рф", "ann@xn--e1afmkfd.xn--p1ai"},
		{"a right-to-left domain", "ann@דוגמה.ישראל", "ann@xn--6dbbec0c.xn--4dbrk0ce"},
		{"ß is not ss (non-transitional)", "ann@faß.de", "ann@xn--fa-hia.de"},
		{"final sigma is not sigma (non-transitional)", "ann@βόλος.com", "ann@xn--nxasmm1c.com"},
		{"full-width letters are letters", "ann@ｅｘａｍｐｌｅ.com", "ann@example.com"},
		{"an ideographic full stop is a dot", "ann@example。com", "ann@example.com"},
		{"a long spelling of a short domain", "ann@" + strings.Repeat("𝐚", 60) + ".com", email.Address("ann@" + strings.Repeat("a", 60) + ".com")},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := email.Parse(c.in)
			if err != nil || got != c.want {
				t.Errorf("Parse(%q) = %q, %v; want %q", c.in, got, err, c.want)
			}
			check(t, got)
		})
	}
}

func TestParse_InvalidAddress(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     error
	}{
		{"an empty string", "", email.ErrMalformed},
		{"white space", " \t ", email.ErrMalformed},
		{"no @", "ann.example.com", email.ErrMalformed},
		{"only an @", "@", email.ErrMalformed},
		{"no local part", "@example.com", email.ErrMalformed},
		{"no domain", "ann@", email.ErrMalformed},
		{"two @", "ann@lee@example.com", email.ErrMalformed},
		{"two @ in a row", "ann@@example.com", email.ErrMalformed},
		{"a second @ at the end", "ann@example.com@", email.ErrMalformed},
		{"a full-width @ in place of the @", "ann＠example.com", email.ErrMalformed},
		{"a full-width @ in the domain", "ann@ex＠ample.com", email.ErrMalformed},

		{"a leading dot", ".ann@example.com", email.ErrMalformed},
		{"a trailing dot before the @", "ann.@example.com", email.ErrMalformed},
		{"two dots in a row", "ann..lee@example.com", email.ErrMalformed},
		{"a local part that is a dot", ".@example.com", email.ErrMalformed},
		{"a space in the local part", "ann lee@example.com", email.ErrMalformed},
		{"a space before the @", "ann @example.com", email.ErrMalformed},
		{"a quoted local part", `"ann"@example.com`, email.ErrMalformed},
		{"a quoted local part with an @", `"ann@lee"@example.com`, email.ErrMalformed},
		{"a backslash", `ann\lee@example.com`, email.ErrMalformed},
		{"a comment", "ann(lee)@example.com", email.ErrMalformed},
		{"a comment in the domain", "ann@example.com(lee)", email.ErrMalformed},
		{"a display name", "Ann Lee <ann@example.com>", email.ErrMalformed},
		{"angle brackets", "<ann@example.com>", email.ErrMalformed},
		{"a list of two", "ann@example.com,bob@example.com", email.ErrMalformed},
		{"a list of two in the local part", "ann,bob@example.com", email.ErrMalformed},
		{"a semicolon", "ann;bob@example.com", email.ErrMalformed},
		{"a colon", "mailto:ann@example.com", email.ErrMalformed},
		{"a local part beyond ASCII", "änn@example.com", email.ErrMalformed},
		{"a local part in full width", "ａnn@example.com", email.ErrMalformed},
		{"a Kelvin sign, which lower-cases to k", "\u212aate@example.com", email.ErrMalformed},
		{"a local part of 65 bytes", strings.Repeat("l", 65) + "@example.com", email.ErrTooLong},

		{"a domain of one label", "ann@localhost", email.ErrMalformed},
		{"a trailing dot", "ann@example.com.", email.ErrMalformed},
		{"an ideographic trailing dot", "ann@example.com。", email.ErrMalformed},
		{"one label and a dot", "ann@localhost.", email.ErrMalformed},
		{"a leading dot in the domain", "ann@.example.com", email.ErrMalformed},
		{"an empty label", "ann@example..com", email.ErrMalformed},
		{"a domain that is a dot", "ann@.", email.ErrMalformed},
		{"a leading hyphen", "ann@-example.com", email.ErrMalformed},
		{"a trailing hyphen", "ann@example-.com", email.ErrMalformed},
		{"a trailing hyphen in the last label", "ann@example.com-", email.ErrMalformed},
		{"hyphens as third and fourth character", "ann@ab--cd.com", email.ErrMalformed},
		{"an underscore", "ann@exa_mple.com", email.ErrMalformed},
		{"a space in the domain", "ann@exa mple.com", email.ErrMalformed},
		{"a Unicode space in the domain", "ann@exa\u00a0mple.com", email.ErrMalformed},
		{"a line separator in the domain", "ann@exa\u2028mple.com", email.ErrMalformed},
		{"a slash", "ann@example.com/x", email.ErrMalformed},
		{"a port", "ann@example.com:25", email.ErrMalformed},
		{"a percent sign", "ann@exa%6dple.com", email.ErrMalformed},
		{"a dotted IPv4 address", "ann@192.0.2.1", email.ErrMalformed},
		{"a dotted IPv4 address in full width", "ann@192.0.2.１", email.ErrMalformed},
		{"a last label of digits", "ann@example.123", email.ErrMalformed},
		{"an IPv4 literal", "ann@[192.0.2.1]", email.ErrMalformed},
		{"an IPv6 literal", "ann@[IPv6:2001:db8::1]", email.ErrMalformed},
		{"a label of 64 bytes", "ann@" + strings.Repeat("d", 64) + ".com", email.ErrMalformed},
		{"an A-label of more than 63 bytes", "ann@" + strings.Repeat("ü", 60) + "äöx.com", email.ErrMalformed},
		{"255 bytes in all", strings.Repeat("l", 64) + "@" + labels(190), email.ErrTooLong},
		{"a domain of 254 bytes", "a@" + labels(254), email.ErrMalformed},
		{"an A-label that decodes to nothing", "ann@xn--.com", email.ErrMalformed},
		{"an A-label that decodes to nothing at the end", "ann@example.xn--", email.ErrMalformed},
		{"an A-label that decodes to ASCII", "ann@xn--example-.com", email.ErrMalformed},
		{"an A-label that is no Punycode", "ann@xn--99999999.com", email.ErrMalformed},
		{"an A-label that hides a capital", "ann@xn--bcher-2pa.example", email.ErrMalformed},
		{"an A-label that hides a zero width joiner", "ann@xn--ab-m1t.com", email.ErrMalformed},
		{"an A-label that hides a soft hyphen", "ann@xn--ab-5da.com", email.ErrMalformed},
		{"an A-label that is not composed", "ann@xn--bucher-xyd.com", email.ErrMalformed},
		{"a mix of directions", "ann@אa.com", email.ErrMalformed},
		{"a right-to-left label beside a label that starts with a digit", "ann@3com.ישראל", email.ErrMalformed},
		{"a symbol that maps to a letter of the other direction", "ann@aℵb.com", email.ErrMalformed},
		{"a combining mark at the beginning", "ann@\u0308x.com", email.ErrMalformed},
		{"a private-use character", "ann@\ue000.com", email.ErrMalformed},
		{"a replacement character", "ann@\ufffd.com", email.ErrMalformed},
		{"invalid UTF-8 in the domain", "ann@ex\xffample.com", email.ErrMalformed},
		{"invalid UTF-8 in the local part", "an\xff@example.com", email.ErrMalformed},
		{"a surrogate in UTF-8", "ann@ex\xed\xa0\x80ample.com", email.ErrMalformed},

		{"a NUL", "ann@example.com\x00", email.ErrInvisible},
		{"a NUL within", "ann\x00@example.com", email.ErrInvisible},
		{"an injected header", "ann@example.com\r\nBcc: bob@example.com", email.ErrInvisible},
		{"a line end before the @", "ann\n@example.com", email.ErrInvisible},
		{"a tab within", "ann@exa\tmple.com", email.ErrInvisible},
		{"a delete", "ann@example.com\x7f", email.ErrInvisible},
		{"a C1 control", "ann@exa\u0080mple.com", email.ErrInvisible},
		{"a soft hyphen", "ann@exa\u00admple.com", email.ErrInvisible},
		{"a zero width space", "ann@exa\u200bmple.com", email.ErrInvisible},
		{"a zero width space in the local part", "an\u200bn@example.com", email.ErrInvisible},
		{"a zero width space around it", "\u200bann@example.com", email.ErrInvisible},
		{"a zero width non-joiner", "ann@نامه\u200cای.com", email.ErrInvisible},
		{"a zero width joiner", "ann@exa\u200dmple.com", email.ErrInvisible},
		{"a word joiner", "ann@exa\u2060mple.com", email.ErrInvisible},
		{"a byte order mark", "\ufeffann@example.com", email.ErrInvisible},
		{"a right-to-left override", "ann@\u202eelpmaxe.com", email.ErrInvisible},
		{"a variation selector", "ann@exa\ufe0fmple.com", email.ErrInvisible},
		{"a variation selector of the supplement", "ann@exa\U000e0100mple.com", email.ErrInvisible},
		{"a Mongolian vowel separator", "ann@exa\u180emple.com", email.ErrInvisible},
		{"a combining grapheme joiner", "ann@exa\u034fmple.com", email.ErrInvisible},
		{"a Hangul filler", "ann@exa\u3164mple.com", email.ErrInvisible},
		{"a tag character", "ann@exa\U000e0061mple.com", email.ErrInvisible},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := email.Parse(c.in)
			if got != "" || !errors.Is(err, c.want) {
				t.Errorf("Parse(%q) = %q, %v; want %v", c.in, got, err, c.want)
			}
		})
	}
}

// The test tries each code point of Unicode inside a label. Parse returns an error or a normal
// form, but never the address without the code point.
func TestParse_RemovesNoCodePoint(t *testing.T) {
	lookup := idna.New(idna.MapForLookup())
	removed := 0
	for r := range rune(0x34000) { // beyond are only tags and variation selectors
		if r >= 0x33000 {
			r += 0xe0000 - 0x33000
		}
		if unicode.Is(unicode.Unified_Ideograph, r) || '가' <= r && r <= '힣' {
			continue // a hundred thousand letters that convert to themselves
		}
		in := "ann@a" + string(r) + "b.com"
		got, err := email.Parse(in)
		if got == "ann@ab.com" {
			t.Errorf("Parse(%q) = %q, without %U", in, got, r)
		}
		if err == nil {
			check(t, got)
		}
		if plain, err := lookup.ToASCII("a" + string(r) + "b.com"); err == nil && plain == "ab.com" {
			removed++
		}
	}
	if removed == 0 {
		t.Error("UTS 46 alone removes no code point, want at least one: this test is obsolete")
	}
}

// A huge input must not reach the conversion, which allocates. The test counts allocations to
// see that.
func TestParse_HugeInput(t *testing.T) {
	for name, unit := range map[string]string{
		"letters":     "a",
		"at signs":    "@",
		"dots":        ".",
		"spaces":      "a ",
		"umlauts":     "ü",
		"labels":      "a@ü.",
		"soft hyphen": "\u00ad",
	} {
		t.Run(name, func(t *testing.T) {
			huge := "a@" + strings.Repeat(unit, 1<<20)
			if n := testing.AllocsPerRun(5, func() {
				if _, err := email.Parse(huge); !errors.Is(err, email.ErrTooLong) {
					t.Errorf("got %v, want %v", err, email.ErrTooLong)
				}
			}); n != 0 {
				t.Errorf("%v allocations, want 0", n)
			}
		})
	}
}

// check fails the test if a normal form violates an invariant.
func check(t *testing.T, a email.Address) {
	t.Helper()
	if strings.Count(string(a), "@") != 1 || len(a) > 254 {
		t.Errorf("got %q, want exactly one @ and at most 254 bytes", a)
	}
	for i := range len(a) {
		if c := a[i]; c <= ' ' || c > '~' || 'A' <= c && c <= 'Z' {
			t.Errorf("got %q with the byte %#x, want printable ASCII without upper case", a, c)
		}
	}
	if again, err := email.Parse(string(a)); again != a || err != nil {
		t.Errorf("Parse(%q) = %q, %v; want it unchanged", a, again, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"ann@example.com", " Ann+x@EXAMPLE.com\n", "ann@bücher.example", "ann@xn--bcher-kva.example",
		"ann@faß.de", "ann@דוגמה.ישראל", "ann@example。com", "ann@xn--.com", "ann@example.xn--", "a@1.2.3.4",
		"a@b\u00ad.c", "a@\u200d.c", `"a@b"@c.d`, "a@[::1]", "a@b.c.", "a\x00@b.c", "a@b\xff.c", "ann@नी\u200dन.com",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := email.Parse(s)
		if err == nil {
			check(t, a)
		} else if a != "" {
			t.Errorf("Parse(%q) = %q, %v; want an empty address with an error", s, a, err)
		}
	})
}

// The time per byte must not grow with the length.
func BenchmarkParse(b *testing.B) {
	for _, c := range []struct{ name, head, unit, tail string }{
		{"ascii", "ann@", "a.", "com"},
		{"international", "ann@", "ü.", "com"},
		{"long label", "ann@", "ü", ".com"},
		{"white space", "", " ", "ann@example.com"},
	} {
		for _, n := range []int{16, 64, 256, 1024, 16 << 10, 1 << 20} {
			s := c.head + strings.Repeat(c.unit, max(1, (n-len(c.head)-len(c.tail))/len(c.unit))) + c.tail
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				b.SetBytes(int64(len(s)))
				b.ReportAllocs()
				for b.Loop() {
					_, _ = email.Parse(s)
				}
			})
		}
	}
}
