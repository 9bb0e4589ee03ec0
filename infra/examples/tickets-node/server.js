// Tickets in Node.js: the same example service as ../tickets, on Express.
//
// The settings are those of ../tickets/main.go, with the name of the database in MONGODB_URI, and
// those of createVerifier.
import { createAuth, createVerifier } from '@ticketing/auth/express'
import { MongoClient } from 'mongodb'
import { createApp } from './app.js'
import { Store } from './store.js'

const setting = (name, standard = '') => process.env[name]?.trim() || standard

const auth = createAuth(createVerifier())
const client = new MongoClient(setting('MONGODB_URI'))
const store = new Store(client.db(), setting('K_SINK'))
const server = createApp(store, auth).listen(setting('PORT', '8080'), (err) => {
  if (err) throw err
  console.log(JSON.stringify({ msg: 'listening', port: server.address().port }))
})
server.headersTimeout = 5_000
server.requestTimeout = 10_000

// A start does not wait for the database. An earlier process can have left events.
async function prepare() {
  try {
    await store.createIndexes()
    await store.deliver()
  } catch (err) {
    console.error(JSON.stringify({ msg: 'the indexes are not created', error: err.message }))
    setTimeout(prepare, 1_000).unref()
  }
}
prepare()

// Finish the requests in flight and their events.
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => server.close(async () => {
    await store.deliver()
    await client.close()
  }))
}
