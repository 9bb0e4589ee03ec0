package journal

// Unstored returns a claim that is not in the database, for a test of the limits.
func Unstored(j *Journal, key string) *Claim { return &Claim{journal: j, key: key, owner: "test"} }
