package mongodb

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/shared/apierror"
)

// overloadRetryAfter is the Retry-After of a response after an overloaded database has
// rejected a command. By then the driver has already retried.
const overloadRetryAfter = 2 * time.Second

// Translate returns the error of a step. If a later attempt may succeed, it is an
// apierror.Unreachable, or an apierror.Busy for an overloaded database. A later attempt may succeed
// if the database cannot be reached, or if its state caused the error and not the command. This includes
// context.Canceled: the driver cancels the connections that it is opening when it clears its pool.
//
// Translate only adds the step to all other errors. They become a 500 response and an error in
// the log. Among them are wrong credentials (18) and missing rights (13) of the function: a
// retry cannot correct these, an operator must.
func Translate(step string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s: %w", step, err)
	switch server, is := errors.AsType[mongo.ServerError](err); {
	case isProgramError(err) || is && !isTransient(server):
		return err
	case is && isOverloaded(server):
		return apierror.Busy(overloadRetryAfter, err)
	}
	return apierror.Unreachable(err)
}

// isOverloaded reports whether the server rejects commands because of overload. The driver
// also adds the label to network errors, on a guess only, so these do not count.
func isOverloaded(err mongo.ServerError) bool {
	return err.HasErrorLabel("SystemOverloadedError") && !err.HasErrorLabel("NetworkError") ||
		slices.ContainsFunc(transientCodes["SystemOverloadedError"], err.HasErrorCode)
}

// isProgramError reports whether this program or a stored document causes the error.
func isProgramError(err error) bool {
	_, argument := errors.AsType[mongo.InvalidArgumentError](err)
	_, marshal := errors.AsType[mongo.MarshalError](err)
	return argument || marshal || errors.Is(err, ErrUnreadable) || errors.Is(err, mongo.ErrNoDocuments)
}

// isTransient reports whether the state of the server causes the error. Labels or codes show
// that. A write with two errors may succeed later if both are transient. Errors without a code
// come from the driver, such as a lost connection.
func isTransient(err mongo.ServerError) bool {
	return slices.ContainsFunc(transientLabels, err.HasErrorLabel) ||
		!slices.ContainsFunc(err.ErrorCodes(), func(code int) bool { return code != 0 && !isTransientCode(code) })
}

// transientLabels are the server's labels of errors after which the same command may succeed.
// NoWritesPerformed is not among them: permanent errors have it too.
//
// Source: MongoDB's driver specifications, "Retryable Writes", "Transactions", "Change
// Streams" and "Client Backpressure".
var transientLabels = []string{"RetryableWriteError", "RetryableError", "SystemOverloadedError", "TransientTransactionError", "ResumableChangeStreamError"}

func isTransientCode(code int) bool {
	for _, codes := range transientCodes {
		if slices.Contains(codes, code) {
			return true
		}
	}
	return false
}

// transientCodes are the codes of transient errors by their category in MongoDB's
// src/mongo/base/error_codes.yml (commit 007ba934). The empty key has those without a category.
var transientCodes = map[string][]int{
	"RetriableError": {6, 7, 89, 91, 134, 189, 262, 317, 358, 384, 402, 406, 407, 412, 453, 462, 9001, 10107, 11600, 11602,
		13435, 13436, 50915, 91331, 10045600},
	"NetworkError":           {6, 7, 89, 317, 384, 9001},
	"NetworkTimeoutError":    {89, 202},
	"NotPrimaryError":        {189, 10107, 11602, 13435, 13436},
	"ShutdownError":          {91, 333, 11600},
	"Interruption":           {24, 50, 237, 262, 279, 281, 282, 290, 355, 453, 11600, 11601, 11602, 46841, 91331, 10045600},
	"CancellationError":      {90, 91, 310, 312, 333, 355, 11600, 46841},
	"ExceededTimeLimitError": {50, 202, 262, 290, 407},
	"SystemOverloadedError":  {433, 449, 450, 462},
	"CloseConnectionError":   {303, 372, 398}, // without LoadBalancerSupportMismatch, 354
	"CursorInvalidatedError": {43, 175, 237, 314},
	"SnapshotError":          {239, 246, 250, 272},
	"StaleShardVersionError": {150, 13388},
	"WriteConcernError":      {64, 100}, // without UnknownReplWriteConcern, 79
	"": {
		46,    // LockBusy
		94,    // NotYetInitialized
		107,   // LockFailed
		109,   // ConfigurationInProgress
		112,   // WriteConflict
		117,   // ConflictingOperationInProgress
		133,   // FailedToSatisfyReadPreference
		145,   // PooledConnectionsDropped
		149,   // NoConfigPrimary
		164,   // InitialSyncActive
		172,   // TransportSessionClosed
		199,   // ReplicaSetMonitorRemoved
		203,   // ShardingStateNotInitialized
		208,   // TooManyLocks
		215,   // DatabaseDropPending
		216,   // ElectionInProgress
		221,   // IndexModified
		228,   // SessionTransferIncomplete
		230,   // DNSHostNotFound
		249,   // StaleDbVersion
		251,   // NoSuchTransaction
		261,   // TooManyLogicalSessions
		264,   // TooManyFilesOpen
		267,   // PreparedTransactionInProgress
		285,   // IndexBuildAlreadyInProgress
		343,   // ShardCannotRefreshDueToLocksHeld
		363,   // RetryableTransactionInProgress
		365,   // TemporarilyUnavailable
		371,   // UserWritesBlocked
		414,   // AddOrRemoveShardInProgress
		10058, // LegacyNotPrimary
		12586, // BackgroundOperationInProgressForDatabase
		12587, // BackgroundOperationInProgressForNamespace
		14031, // OutOfDiskSpace: until an operator frees space
		56846, // ConfigServerUnreachable
	},
}

// Read decodes the document that a command returned. If a member has an unexpected type, it
// returns ErrUnreadable. A retry would return the same error.
func Read(found *mongo.SingleResult, into any) error {
	raw, err := found.Raw()
	if err != nil {
		return err
	}
	if err := bson.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return nil
}

// ErrUnreadable is the error of Read for a document with a member of an unexpected type.
var ErrUnreadable = errors.New("a document has a member of an unexpected type")
