package ratelimit

import (
	"net/netip"
	"strings"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
)

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
// Each trusted proxy appends the address that it received the request from to
// X-Forwarded-For, so with n of them the client is entry n from the right. The client can
// write all entries to the left of it. Several headers are one list (RFC 9110 section 5.3),
// and empty entries do not count (section 5.6.1). If the list is shorter, or the entry is no
// address, the request did not pass all proxies: then the peer counts, which cannot be forged.
//
// A request that enters behind the first proxy, from a pod inside the cluster to the internal
// gateway, the activator or the function, passes fewer proxies and can write entry n itself.
// Two means prevent that, and one of them is needed where such pods are not trusted:
//
//   - NetworkPolicies that allow only the proxies to reach the next proxy and the function,
//     in the namespaces of the ingress and of Knative as well.
//   - PROXY_NETWORKS, the networks that hold proxies and nothing else. The first sender from
//     the right that is outside of them is the client, whatever stands to its left. A pod then
//     counts for its own address, which the first proxy on its way appended.
//
// Without both, only the limit per account holds for such a pod.
func (l *Limiter) client(c endpoint.Client) netip.Addr {
	peer, _ := parse(c.Peer)
	sender := peer
	for n := range l.hops {
		if len(l.proxies) > 0 && !l.isProxy(sender) {
			return sender
		}
		if len(l.proxies) == 0 && n < l.hops-1 {
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

// isProxy reports whether an address is that of a proxy. The queue-proxy of Knative shares
// the network of its pod, so it is a loopback address.
func (l *Limiter) isProxy(a netip.Addr) bool {
	for _, p := range l.proxies {
		if p.Contains(a) {
			return true
		}
	}
	return a.IsLoopback()
}

// fromRight returns entry n of a list, counted from the right and from 1, or "". It reads no
// more of the list than that.
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

// parse reads an address as proxies write it, with or without a port and brackets. An
// IPv4-mapped IPv6 address is an IPv4 address. A zone has a meaning only on its host.
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
