//go:build linux

package install

import "testing"

func TestWithoutLiveness(t *testing.T) {
	const manifest = `containers:
  - name: webhook
    livenessProbe:
      httpGet:
        port: 8443

      initialDelaySeconds: 120
    ports:
      - containerPort: 8443
`
	const want = `containers:
  - name: webhook
    ports:
      - containerPort: 8443
`
	if got := string(withoutLiveness([]byte(manifest))); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
