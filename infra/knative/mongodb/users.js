// Makes the replica set, if there is none, and for each function a database user that
// may do what the function does and nothing else. It may be run again: that gives
// the users the passwords and rights that are written here and in PASSWORDS.
//
//   MONGODB_URI  as a user who may make users (of a managed database: its administrator)
//   PASSWORDS    {"signup": "…", …}, as "go run ./infra/keys secrets" makes them
//   ONLY         the names of the users to make now; all, if unset
//
//   mongosh --nodb --file users.js

// throttles is the collection of the version before, which runs beside this one during a
// rolling deployment. Remove it in the version after this one.
const count = ["find", "insert", "update"], index = ["createCollection", "createIndex", "dropIndex"];
const may = {
  signup: { users: ["find", "insert", "update"], ratelimits: count, throttles: count }, // finds what an Idempotency-Key has made
  signin: { users: ["find", "update"], ratelimits: count, throttles: count },
  signout: { users: ["find", "update"] },
  currentuser: { users: ["find"] },
  refresh: { users: ["find", "update"], ratelimits: count, throttles: count },
  relay: { users: ["find", "update"] },
  auth: { users: ["find", "insert", "update"], ratelimits: count, throttles: count }, // every route in one process
  migrate: { users: index, ratelimits: index, throttles: index },
};
const database = "users";

const uri = process.env.MONGODB_URI.trim(), passwords = JSON.parse(process.env.PASSWORDS);
const only = process.env.ONLY?.trim() ? process.env.ONLY.trim().split(" ") : Object.keys(may);

const mongo = reached();
if (!primary(mongo)) {
  try {
    const host = uri.match(/@([^/?]+)/)[1]; // as the functions reach it, or they would be led elsewhere
    mongo.getDB("admin").runCommand({ replSetInitiate: { _id: "rs0", members: [{ _id: 0, host }] } });
  } catch (e) {
    if (e.codeName !== "AlreadyInitialized") throw e;
  }
  while (!primary(mongo)) sleep(500);
}
for (const name of only) {
  if (!passwords[name]) throw new Error("PASSWORDS has none for " + name);
  const db = mongo.getDB(database);
  const privileges = Object.entries(may[name]).map(([collection, actions]) => ({ resource: { db: database, collection }, actions }));
  const role = { privileges, roles: [] };
  const user = { pwd: passwords[name], roles: [{ role: name, db: database }] };
  db.getRole(name) ? db.updateRole(name, role) : db.createRole({ role: name, ...role });
  db.getUser(name) ? db.updateUser(name, user) : db.createUser({ user: name, ...user });
  for (const [collection, actions] of Object.entries(may[name])) print(name + " may " + actions.join(", ") + " " + collection);
}

// reached waits for a server that is starting, for two minutes.
function reached() {
  for (let left = 120; ; left--) {
    try {
      const mongo = new Mongo(uri);
      primary(mongo);
      return mongo;
    } catch (e) {
      if (left === 0) throw e;
      sleep(1000);
    }
  }
}

function primary(mongo) {
  return mongo.getDB("admin").runCommand({ hello: 1 }).isWritablePrimary;
}
