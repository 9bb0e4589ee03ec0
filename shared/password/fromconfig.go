package password

import (
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/memory"
	"ticketing.com/auth/shared/telemetry"
)

// FromConfig returns the hasher of HASH_MEMORY_KIB, HASH_TIME and HASH_CONCURRENCY. It
// rejects parameters below OWASP's minimum, unless HASH_TESTING is on.
func FromConfig(cfg *config.Config) *Hasher {
	return config.Part(cfg, "password hasher", func() *Hasher {
		c := Config{
			Telemetry:   telemetry.FromConfig(cfg),
			MemoryKiB:   uint32(cfg.Number("HASH_MEMORY_KIB", defaultMemoryKiB, 64, 1<<20)),
			Time:        uint32(cfg.Number("HASH_TIME", defaultTime, 1, 16)),
			Concurrency: cfg.Number("HASH_CONCURRENCY", 0, 0, 1024), // 0: from the cores and the memory limit
		}
		switch testing := cfg.Switch("HASH_TESTING", false); {
		case testing:
			cfg.Log().Warn("HASH_TESTING is on: password hashes may be too weak for production")
		case !meetsMinimum(c.MemoryKiB, c.Time):
			cfg.Problem("HASH_MEMORY_KIB", "and HASH_TIME are below OWASP's minimum for argon2id: set at least 47104 and 1, 19456 and 2, 12288 and 3, 9216 and 4, or 7168 and 5")
		}
		if limit := memory.Limit(); int64(c.MemoryKiB) > limit/1024*2/3 {
			cfg.Problem("HASH_MEMORY_KIB", "is more than two thirds of the memory limit of this process")
		}
		return New(c)
	})
}
