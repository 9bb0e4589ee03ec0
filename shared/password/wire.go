package password

import "ticketing.com/auth/shared/app"

// Wire returns the hasher of the environment: HASH_MEMORY_KIB, HASH_TIME,
// HASH_CONCURRENCY.
func Wire(w *app.Wiring) *Hasher {
	return app.Part(w, "password hasher", func() *Hasher {
		return New(Config{
			MemoryKiB:   uint32(w.Number("HASH_MEMORY_KIB", defaultMemoryKiB, 64, 1<<20)),
			Time:        uint32(w.Number("HASH_TIME", defaultTime, 1, 16)),
			Concurrency: w.Number("HASH_CONCURRENCY", 0, 0, 1024), // 0: by CPU and memory
		})
	})
}
