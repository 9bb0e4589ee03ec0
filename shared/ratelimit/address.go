package ratelimit

import (
	"net/netip"
	"strings"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
)

// Proxies determines the address of a client behind the trusted proxies.
type Proxies struct {
	hops     int            // TRUSTED_PROXIES
	networks []netip.Prefix // PROXY_NETWORKS
}

// ProxiesFromConfig returns the proxies of TRUSTED_PROXIES and PROXY_NETWORKS.
func ProxiesFromConfig(cfg *config.Config) Proxies {
	return Proxies{cfg.Number("TRUSTED_PROXIES", 0, 0, 16), networks(cfg)}
}

// networks returns PROXY_NETWORKS.
func networks(cfg *config.Config) (all []netip.Prefix) {
	for s := range strings.SplitSeq(cfg.Text("PROXY_NETWORKS", ""), ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil || p != p.Masked() || p.Addr().Is4In6() {
			cfg.Problem("PROXY_NETWORKS", "must list networks such as 10.1.0.0/24, separated by commas")
			return nil
		}
		all = append(all, p)
	}
	return all
}

// client returns the address of the client.
//
// Each trusted proxy appends the address of its peer to X-Forwarded-For. So with n trusted
// proxies, the client is entry n from the right. The client can write all entries to the left
// of it. Several headers are one list (RFC 9110 section 5.3), and empty entries do not count
// (section 5.6.1). If the list is shorter, or the entry is no address, the request did not pass
// all proxies. Then client returns the address of the peer. It cannot be forged.
//
// A pod inside the cluster can send a request to the internal gateway, the activator or the
// function. That request passes fewer proxies, so the pod can write entry n itself. If such
// pods are not trusted, one of two measures is needed:
//
//   - NetworkPolicies that allow only the proxies to reach the next proxy and the function,
//     in the namespaces of the ingress and of Knative as well.
//   - PROXY_NETWORKS, the networks that contain only proxies. The first sender from the right
//     outside these networks is the client; entries to its left do not matter. A pod then
//     counts for its own address, which its first proxy appended.
//
// Without both, only the limit per account applies to such a pod.
func (p *Proxies) client(c endpoint.Client) netip.Addr {
	peer, _ := parse(c.Peer)
	sender := peer
	for n := range p.hops {
		if len(p.networks) > 0 && !p.isProxy(sender) {
			return sender
		}
		if len(p.networks) == 0 && n < p.hops-1 {
			continue
		}
		a, err := parse(fromRight(c.Forwarded, n+1))
		if err != nil {
			return peer
		}
		sender = a
	}
	return sender
}

// Network returns the network of the client for people: its /24 of IPv4 or its /48 of IPv6. It returns ""
// without an address, as for an event.
func (p *Proxies) Network(c endpoint.Client) string {
	a := p.client(c)
	bits := 24
	switch {
	case !a.IsValid():
		return ""
	case a.Is6():
		bits = 48
	}
	return netip.PrefixFrom(a, bits).Masked().String()
}

// isProxy reports whether an address is that of a proxy. The queue-proxy of Knative shares
// the network of its pod, so it is a loopback address.
func (p *Proxies) isProxy(a netip.Addr) bool {
	for _, network := range p.networks {
		if network.Contains(a) {
			return true
		}
	}
	return a.IsLoopback()
}

// fromRight returns entry n of a list, counted from the right and from 1, or "". It does not
// read the entries to the left of entry n.
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

// parse parses an address in the formats of proxies: with or without a port and brackets. It
// returns an IPv4-mapped IPv6 address as an IPv4 address. It removes the zone: a
// zone has a meaning only on its host.
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
