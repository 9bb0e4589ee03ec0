// Creates the replica set, if there is none, and a database user for each function. Each user
// has exactly the rights that its function declares. The script can run again: it then sets the
// passwords from PASSWORDS and the rights below.
//
//   MONGODB_URI  with a user that can create users (for a managed database: its administrator)
//   PASSWORDS    {"signup": "…", …}, from "go run ./infra/keys secrets"
//   ONLY         the names of the users to create now; all, if unset
//
//   mongosh --nodb --file users.js

// rights: made by "go run ./infra/generate"
const rights = {
  "signup": [
    { db: "users", collection: "users", actions: ["find", "insert", "update"] },
    { db: "users", collection: "ratelimits", actions: ["find", "insert", "update"] },
  ],
  "signin": [
    { db: "users", collection: "users", actions: ["find", "update"] },
    { db: "users", collection: "ratelimits", actions: ["find", "insert", "update"] },
  ],
  "signout": [
    { db: "users", collection: "users", actions: ["find", "update"] },
  ],
  "currentuser": [
    { db: "users", collection: "users", actions: ["find"] },
  ],
  "refresh": [
    { db: "users", collection: "users", actions: ["find", "update"] },
    { db: "users", collection: "ratelimits", actions: ["find", "insert", "update"] },
  ],
  "account": [
    { db: "users", collection: "users", actions: ["find", "update"] },
    { db: "users", collection: "ratelimits", actions: ["find", "insert", "update"] },
  ],
  "verification": [
    { db: "users", collection: "users", actions: ["find", "update"] },
    { db: "users", collection: "ratelimits", actions: ["find", "insert", "update"] },
  ],
  "password": [
    { db: "users", collection: "users", actions: ["find", "update"] },
    { db: "users", collection: "ratelimits", actions: ["find", "insert", "update"] },
  ],
  "recovery": [
    { db: "users", collection: "users", actions: ["find", "update"] },
    { db: "users", collection: "ratelimits", actions: ["find", "insert", "update"] },
  ],
  "email": [
    { db: "users", collection: "users", actions: ["find", "update"] },
    { db: "users", collection: "ratelimits", actions: ["find", "insert", "update"] },
  ],
  "sessions": [
    { db: "users", collection: "users", actions: ["find", "update"] },
  ],
  "history": [
    { db: "users", collection: "users", actions: ["find"] },
  ],
  "export": [
    { db: "users", collection: "users", actions: ["find"] },
  ],
  "introspect": [
    { db: "users", collection: "users", actions: ["find"] },
  ],
  "revocations": [
    { db: "users", collection: "users", actions: ["find"] },
  ],
  "relay": [
    { db: "users", collection: "users", actions: ["find", "update"] },
  ],
  "mail": [
    { db: "users", collection: "mails", actions: ["find", "insert", "update"] },
  ],
  "auth": [
    { db: "users", collection: "users", actions: ["find", "insert", "update"] },
    { db: "users", collection: "ratelimits", actions: ["find", "insert", "update"] },
    { db: "users", collection: "mails", actions: ["find", "insert", "update"] },
  ],
  "migrate": [
    { db: "users", collection: "users", actions: ["createCollection", "createIndex", "dropIndex"] },
    { db: "users", collection: "ratelimits", actions: ["createCollection", "createIndex", "dropIndex"] },
    { db: "users", collection: "mails", actions: ["createCollection", "createIndex", "dropIndex"] },
  ],
};
// end of rights
const database = "users"; // stores the users and their roles

const uri = process.env.MONGODB_URI.trim(), passwords = JSON.parse(process.env.PASSWORDS);
const only = process.env.ONLY?.trim() ? process.env.ONLY.trim().split(" ") : Object.keys(rights);

const mongo = connected();
if (!primary(mongo)) {
  try {
    const host = uri.match(/@([^/?]+)/)[1]; // the address that the functions use: drivers connect to the address in the configuration
    mongo.getDB("admin").runCommand({ replSetInitiate: { _id: "rs0", members: [{ _id: 0, host }] } });
  } catch (e) {
    if (e.codeName !== "AlreadyInitialized") throw e;
  }
  while (!primary(mongo)) sleep(500);
}
for (const name of only) {
  if (!passwords[name]) throw new Error("PASSWORDS has no password for " + name);
  const db = mongo.getDB(database);
  const privileges = rights[name].map(({ db, collection, actions }) => ({ resource: { db, collection }, actions }));
  const role = { privileges, roles: [] };
  const user = { pwd: passwords[name], roles: [{ role: name, db: database }] };
  db.getRole(name) ? db.updateRole(name, role) : db.createRole({ role: name, ...role });
  db.getUser(name) ? db.updateUser(name, user) : db.createUser({ user: name, ...user });
  for (const { db, collection, actions } of rights[name]) print("granted " + name + ": " + actions.join(", ") + " on " + db + "." + collection);
}

// connected returns a connection. It waits up to two minutes for a server that starts.
function connected() {
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
