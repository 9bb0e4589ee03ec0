package mongodb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/shared/apierror"
)

// overloaded is how long a client waits after the database has refused a command because
// it has too much to do. The driver has tried again by then.
const overloaded = 2 * time.Second

// Translate returns the error of a step. It is a fault.Away, or a fault.Busy where the
// database is overloaded, if a later try may succeed: the database cannot be reached, or
// it says that the error is due to its state and not to the command. All other errors
// stay what they are, which makes them a 500 and an error in the log: among them that the
// database does not accept the credentials (18) or the rights (13) of the function, which
// no later try changes and an operator must.
func Translate(step string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s: %w", step, err)
	switch server, is := errors.AsType[mongo.ServerError](err); {
	case errors.Is(err, context.Canceled) || wrong(err) || is && !transient(server):
		return err
	case is && sheds(server):
		return apierror.Busy(overloaded, err)
	}
	return apierror.Unreachable(err)
}

// sheds reports whether the server refuses commands because it has too much to do. Of a
// network error the driver only supposes that.
func sheds(err mongo.ServerError) bool {
	return err.HasErrorLabel("SystemOverloadedError") && !err.HasErrorLabel("NetworkError") ||
		slices.ContainsFunc(transientCodes["SystemOverloadedError"], err.HasErrorCode)
}

// wrong reports whether an error is one of this program or of a stored document.
func wrong(err error) bool {
	_, argument := errors.AsType[mongo.InvalidArgumentError](err)
	_, marshal := errors.AsType[mongo.MarshalError](err)
	return argument || marshal || errors.Is(err, ErrUnreadable) || errors.Is(err, mongo.ErrNoDocuments)
}

// transient reports whether a server's error is due to its state. The labels say so, or
// the codes do; a write that failed for two reasons can succeed if both are transient.
// Errors without a code are the driver's own, such as that of a lost connection.
func transient(err mongo.ServerError) bool {
	return slices.ContainsFunc(transientLabels, err.HasErrorLabel) ||
		!slices.ContainsFunc(err.ErrorCodes(), func(code int) bool { return code != 0 && !isTransient(code) })
}

// transientLabels are those that the server puts on errors after which the same command
// may succeed. NoWritesPerformed is none: it is also on errors that come again.
//
// Source: MongoDB's driver specifications, "Retryable Writes", "Transactions", "Change
// Streams" and "Client Backpressure".
var transientLabels = []string{"RetryableWriteError", "RetryableError", "SystemOverloadedError", "TransientTransactionError", "ResumableChangeStreamError"}

func isTransient(code int) bool {
	for _, codes := range transientCodes {
		if slices.Contains(codes, code) {
			return true
		}
	}
	return false
}

// transientCodes are the codes of transient errors by their category in MongoDB's
// src/mongo/base/error_codes.yml (commit 007ba934), and those that have none there.
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
		14031, // OutOfDiskSpace: until an operator makes room
		56846, // ConfigServerUnreachable
	},
}

// Read decodes the document that a command returned. It returns ErrUnreadable for one with a
// member of an unexpected type; a retry would return the same.
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
var ErrUnreadable = errors.New("a document does not fit")
