package throttle

import (
	"net/netip"
	"strings"

	"ticketing.com/auth/shared/endpoint"
)

// subject is whom a call counts for, as text: an IPv4 address, or the /64 of an IPv6
// one, which is what one customer has at the least, to draw addresses from as he
// likes. Calls whose address is not known count together.
func (t *Throttle) subject(c endpoint.Caller) string {
	a := client(c, t.hops)
	if a.Is6() {
		return netip.PrefixFrom(a, 64).Masked().String()
	}
	return a.String()
}

// client is the address that a call comes from. With so many trusted proxies on the
// way, each of which has added the one before it to X-Forwarded-For, it is so many
// entries from the right; what stands left of that, anybody may have written. Several
// headers are one list (RFC 9110 §5.3), and empty entries are none (§5.6.1).
//
// Where the list is shorter, or that entry is no address, the call has not come by
// the way that was promised, and it is the peer that counts: it cannot be forged, and
// those who share it are throttled together.
func client(c endpoint.Caller, hops int) netip.Addr {
	if hops > 0 {
		if a, err := parse(fromRight(c.Forwarded, hops)); err == nil {
			return a
		}
	}
	peer, _ := parse(c.Peer)
	return peer
}

// fromRight returns an entry of a list, 1 being the last, or "". It reads no more of
// the list than that.
func fromRight(headers []string, n int) string {
	for i := len(headers) - 1; i >= 0; i-- {
		for rest, more := headers[i], true; more; {
			comma := strings.LastIndexByte(rest, ',')
			entry := strings.Trim(rest[comma+1:], " \t")
			if more = comma >= 0; more {
				rest = rest[:comma]
			}
			if entry == "" {
				continue
			}
			if n--; n == 0 {
				return entry
			}
		}
	}
	return ""
}

// parse reads an address as proxies write them: with a port or in brackets or
// neither. An IPv4 address in the clothes of IPv6 is one of IPv4, and a zone means
// nothing to anybody but the host that wrote it.
func parse(s string) (netip.Addr, error) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), nil
	}
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		s = s[1 : len(s)-1]
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap().WithZone(""), err
}
