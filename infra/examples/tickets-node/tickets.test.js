// The tests need MONGODB_URI, and create a database of their own there. ../tickets/dev starts an
// embedded database for them:
//
//	cd infra/examples/tickets && GOWORK=off go run ./dev npm --prefix ../tickets-node test
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer, request } from 'node:http'
import { after, test } from 'node:test'
import { createAuth, createVerifier } from '@ticketing/auth/express'
import { createTestIssuer } from '@ticketing/auth/testing'
import { MongoClient, ObjectId } from 'mongodb'
import { createApp } from './app.js'
import { Store } from './store.js'

const client = new MongoClient(process.env.MONGODB_URI)
const database = client.db('tickets_node_' + randomUUID().slice(0, 8))
let collections = 0
const issuer = await createTestIssuer()
const attacker = await createTestIssuer()
const auth = createAuth(createVerifier({ environment: issuer.environment }))

after(async () => {
  await database.dropDatabase()
  await client.close()
})

const token = (user, claims) => issuer.token({ sub: user, ...claims })

// serve starts a service with a collection of its own, until the end of the test.
async function serve(t, { sink = '' } = {}) {
  const name = 'tickets' + ++collections
  const store = new Store({ collection: () => database.collection(name) }, sink)
  await store.createIndexes()
  const server = createApp(store, auth).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(async () => {
    server.closeAllConnections()
    server.close()
    await store.deliver()
  })
  const url = `http://127.0.0.1:${server.address().port}`
  const call = async (method, path, body, headers = {}) => {
    const response = await fetch(url + path, { method, body, headers: { ...(body === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers } })
    assert.equal(response.headers.get('cache-control'), 'no-store')
    assert.equal(response.headers.get('x-content-type-options'), 'nosniff')
    assert.equal(response.headers.get('x-powered-by'), null)
    const text = await response.text()
    if (text) assert.equal(response.headers.get('content-type'), 'application/json')
    return { status: response.status, text, headers: response.headers }
  }
  const as = async (user, method, path, body) => call(method, path, body, { Authorization: `Bearer ${await token(user)}` })
  const create = async (user) => {
    const { status, headers } = await as(user, 'POST', '/api/tickets', '{"title":"Concert","price":1500}')
    assert.equal(status, 201)
    return headers.get('location')
  }
  const deleted = (user, headers = {}) => call('POST', '/', JSON.stringify({ userId: user }),
    { 'ce-specversion': '1.0', 'ce-id': '1', 'ce-source': '/api/users', 'ce-type': 'com.ticketing.user.deleted.v1', ...headers })
  return { url, name, store, call, as, create, deleted }
}

function want(response, status, text) {
  assert.deepEqual({ status: response.status, text: response.text }, { status, text })
}

const failure = (message, field) => JSON.stringify({ errors: [{ message, field }] })
const idOf = (path) => path.slice('/api/tickets/'.length)

test('create, show, update, transfer', async (t) => {
  const a = await serve(t)
  const created = await a.as('ann', 'POST', '/api/tickets', '{"title":" Concert ","price":1500,"owner":"bob"}')
  const path = created.headers.get('location')
  const state = (title, price, owner, onSale, version) => JSON.stringify({ ticket: { id: idOf(path), title, price, owner, onSale, version } })
  want(created, 201, state('Concert', 1500, 'ann', true, 1))
  want(await a.call('GET', path), 200, state('Concert', 1500, 'ann', true, 1))
  want(await a.as('ann', 'PUT', path, '{"title":"Opera","price":2000,"onSale":true,"version":1}'), 200, state('Opera', 2000, 'ann', true, 2))
  want(await a.as('ann', 'PUT', path, '{"title":"Ballet","price":1,"onSale":true,"version":1}'), 409, failure('The ticket has changed. Read it again.'))
  want(await a.as('bob', 'PUT', path, '{"title":"Mine","price":1,"onSale":true,"version":2}'), 403, failure('Only the owner may do this.'))
  want(await a.as('bob', 'POST', path + '/transfer', '{"to":"bobby"}'), 403, failure('Only the owner may do this.'))
  want(await a.as('ann', 'POST', path + '/transfer', '{"to":"bob"}'), 200, state('Opera', 2000, 'bob', false, 3))
  want(await a.as('bob', 'PUT', path, '{"title":"Opera","price":2500,"onSale":true,"version":3}'), 200, state('Opera', 2500, 'bob', true, 4))
  for (const id of ['65f000000000000000000000', 'A5F000000000000000000000', 'x', '%00']) {
    want(await a.call('GET', '/api/tickets/' + id), 404, failure('There is no such ticket.'))
  }
})

test('a token that is missing or not valid', async (t) => {
  const a = await serve(t)
  const path = await a.create('ann')
  const valid = await token('ann')
  const [head, payload, signature] = valid.split('.')
  const encode = (o) => Buffer.from(JSON.stringify(o)).toString('base64url')
  const bob = encode({ ...JSON.parse(Buffer.from(payload, 'base64url')), sub: 'bob' })
  const now = Math.floor(Date.now() / 1000)
  const none = 'Bearer'
  const invalid = 'Bearer error="invalid_token"'
  for (const [name, challenge, field] of [
    ['no header', none],
    ['another scheme', none, 'Basic YW5uOnNlY3JldA=='],
    ['a token alone', none, valid],
    ['a scheme alone', invalid, 'Bearer'],
    ['another key', invalid, 'Bearer ' + await attacker.token({}, { kid: issuer.keys.keys[0].kid })],
    ['an unknown key', invalid, 'Bearer ' + await attacker.token()],
    ['another user', invalid, `Bearer ${head}.${bob}.${signature}`],
    ['another type', invalid, 'Bearer ' + await issuer.token({}, { typ: 'JWT' })],
    ['another issuer', invalid, 'Bearer ' + await token('ann', { iss: 'evil' })],
    ['another audience', invalid, 'Bearer ' + await token('ann', { aud: 'mail' })],
    ['an expired token', invalid, 'Bearer ' + await token('ann', { iat: now - 900, exp: now })],
  ]) {
    await t.test(name, async () => {
      for (const [method, target, body] of [
        ['POST', '/api/tickets', '{"title":"Opera","price":1}'],
        ['PUT', path, '{"title":"Opera","price":1,"onSale":true,"version":1}'],
        ['POST', path + '/transfer', '{"to":"bob"}'],
        ['POST', '/api/tickets', '{'], // the token is checked first
      ]) {
        const response = await a.call(method, target, body, field && { Authorization: field })
        want(response, 401, failure(challenge === none ? 'A bearer token is needed.' : 'The token is not valid.'))
        assert.equal(response.headers.get('www-authenticate'), challenge)
      }
    })
  }
  const twice = request(a.url + '/api/tickets', { method: 'POST', headers: ['Host', 'localhost', 'Authorization', `Bearer ${valid}`, 'Authorization', `Bearer ${valid}`] })
  const [response] = await once(twice.end(), 'response')
  assert.equal(response.statusCode, 401)
  response.resume()
  assert.match((await a.call('GET', path)).text, /"title":"Concert".*"version":1}/)
  assert.equal((await a.call('POST', '/api/tickets', '{"title":"a","price":1}', { Authorization: `bEARER  ${await token('ann')}` })).status, 201)
})

test('a race has one winner', async (t) => {
  const a = await serve(t)
  const [path, other] = [await a.create('ann'), await a.create('ann')]
  const Authorization = `Bearer ${await token('ann')}`
  const race = async (send) => (await Promise.all(Array.from({ length: 10 }, (_, i) => send(i)))).map((r) => r.status).sort()
  assert.deepEqual(await race((i) => a.call('PUT', path, `{"title":"Opera ${i}","price":1,"onSale":true,"version":1}`, { Authorization })), [200, ...Array(9).fill(409)])
  assert.deepEqual(await race((i) => a.call('POST', other + '/transfer', `{"to":"user-${i}"}`, { Authorization })), [200, ...Array(9).fill(403)])
  assert.match((await a.call('GET', path)).text, /"version":2}/)
})

test('pages of the tickets on sale', async (t) => {
  const a = await serve(t)
  want(await a.call('GET', '/api/tickets'), 200, '{"tickets":[]}')
  const all = []
  for (let i = 0; i < 3; i++) all.push(JSON.parse((await a.call('GET', await a.create('ann'))).text).ticket)
  await a.as('ann', 'POST', await a.create('ann') + '/transfer', '{"to":"bob"}')
  want(await a.call('GET', '/api/tickets'), 200, JSON.stringify({ tickets: all }))
  want(await a.call('GET', '/api/tickets?limit=2'), 200, JSON.stringify({ tickets: all.slice(0, 2), next: all[1].id }))
  want(await a.call('GET', `/api/tickets?limit=2&after=${all[1].id}`), 200, JSON.stringify({ tickets: all.slice(2) }))
  for (const value of ['0', '101', '-1', '1.5', 'x', '', '1&limit=1', '99999999999999999999']) {
    want(await a.call('GET', `/api/tickets?limit=${value}`), 400, failure('Limit must be a number from 1 to 100.', 'limit'))
  }
  for (const value of ['x', '', '1', `${all[0].id}&after=${all[1].id}`]) {
    want(await a.call('GET', `/api/tickets?after=${value}`), 400, failure('After must be the member next of a page.', 'after'))
  }
})

test('input that is not valid', async (t) => {
  const a = await serve(t)
  const path = await a.create('ann')
  const check = async (method, target, body, ...fields) => {
    const response = await a.as('ann', method, target, body)
    assert.deepEqual([response.status, JSON.parse(response.text).errors.map((e) => e.field)], [400, fields], `${method} ${body}`)
  }
  for (const body of ['{', '[]', '"x"', '1', ' ', '{}{}', '\ufeff{}', Buffer.from('{"title":"\xff","price":1}', 'latin1')]) {
    await check('POST', '/api/tickets', body, undefined)
  }
  for (const value of ['null', '""', '"  "', '1', '[]', '"a\\u0000b"', '"\\ud800"', `"${'é'.repeat(201)}"`]) await check('POST', '/api/tickets', `{"title":${value},"price":1}`, 'title')
  for (const value of ['null', '"1"', '0', '-1', '1.5', '100000001', '1e400', '[1]']) await check('POST', '/api/tickets', `{"title":"a","price":${value}}`, 'price')
  for (const value of ['null', '"true"', '0']) await check('PUT', path, `{"title":"a","price":1,"onSale":${value},"version":1}`, 'onSale')
  for (const value of ['null', '"1"', '0', '{"$gt":0}']) await check('PUT', path, `{"title":"a","price":1,"onSale":true,"version":${value}}`, 'version')
  for (const value of ['null', '""', '"ann"', '"a b"', '"a\\n"', `"${'a'.repeat(129)}"`, '{"$ne":"x"}']) await check('POST', path + '/transfer', `{"to":${value}}`, 'to')
  await check('POST', '/api/tickets', '{"__proto__":{"title":"a","price":1}}', 'title', 'price')
  await check('PUT', path, '{}', 'title', 'price', 'onSale', 'version')
  const Authorization = `Bearer ${await token('ann')}`
  for (const [status, body, headers] of [
    [415, '{"title":"a","price":1}', { 'Content-Type': 'text/plain' }],
    [415, '{"title":"a","price":1}', { 'Content-Encoding': 'gzip' }],
    [413, '{"title":"a","price":1' + ' '.repeat(16 << 10) + '}', {}],
    [201, '{"title":"a","price":1}', { 'Content-Type': 'Application/JSON; charset=utf-8' }],
  ]) assert.equal((await a.call('POST', '/api/tickets', body, { Authorization, ...headers })).status, status)
})

test('paths and methods', async (t) => {
  const a = await serve(t)
  const path = await a.create('ann')
  for (const target of ['/api/ticketsX', '/api/tickets/', '/api/tickets/a/b', '/API/tickets', path + '/', '/health']) {
    for (const method of ['GET', 'POST', 'DELETE']) want(await a.call(method, target), 404, failure('There is nothing at this path.'))
  }
  for (const [target, allow, ...methods] of [['/api/tickets', 'GET, HEAD, POST', 'PUT', 'DELETE', 'OPTIONS'], [path, 'GET, HEAD, PUT', 'POST', 'PATCH'], [path + '/transfer', 'POST', 'GET', 'PUT']]) {
    for (const method of methods) {
      const response = await a.call(method, target)
      want(response, 405, failure('This method is not allowed here.'))
      assert.equal(response.headers.get('allow'), allow)
    }
  }
  want(await a.call('GET', '/api/tickets/%zz'), 400, failure('The request is not valid.'))
})

test('the deletion of a user', async (t) => {
  const a = await serve(t)
  const [path, other] = [await a.create('ann'), await a.create('bob')]
  const unchanged = (await a.call('GET', other)).text
  for (const id of ['1', '1', '2']) {
    want(await a.deleted('ann', { 'ce-id': id }), 204, '')
    want(await a.call('GET', path), 200, JSON.stringify({ ticket: { id: idOf(path), title: 'Concert', price: 1500, onSale: false, version: 2 } }))
    want(await a.call('GET', other), 200, unchanged)
  }
  want(await a.call('POST', '/', '{"specversion":"1.0","id":"1","source":"/api/users","type":"com.ticketing.user.deleted.v1","data":{"userId":"bob"}}', { 'Content-Type': 'application/cloudevents+json' }), 204, '')
  assert.doesNotMatch((await a.call('GET', other)).text, /owner/)
  for (const [name, body, headers] of [
    ['no event', '{"userId":"carl"}', { 'ce-specversion': undefined, 'ce-id': undefined, 'ce-source': undefined, 'ce-type': undefined }],
    ['no id', '{"userId":"carl"}', { 'ce-id': undefined }],
    ['another version', '{"userId":"carl"}', { 'ce-specversion': '9' }],
    ['another type', '{"userId":"carl"}', { 'ce-type': 'com.ticketing.user.signedup.v1' }],
    ['no JSON', '{', {}],
    ['no user', '{}', {}],
    ['a filter', '{"userId":{"$ne":""}}', {}],
    ['a batch', '[]', { 'Content-Type': 'application/cloudevents-batch+json' }],
  ]) {
    const all = { 'ce-specversion': '1.0', 'ce-id': '1', 'ce-source': '/api/users', 'ce-type': 'com.ticketing.user.deleted.v1', ...headers }
    const response = await a.call('POST', '/', body, Object.fromEntries(Object.entries(all).filter(([, value]) => value)))
    assert.equal(response.status, 400, name)
  }
})

// A sink receives events. It answers with the status that sink.status returns.
async function newSink(t) {
  const received = []
  const sink = { status: () => 200 }
  const server = createServer(async (req, res) => {
    let body = ''
    for await (const chunk of req) body += chunk
    res.writeHead(sink.status()).end()
    received.push({ id: req.headers['ce-id'], type: req.headers['ce-type'], key: req.headers['ce-partitionkey'], data: body })
    server.emit('received')
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => { server.closeAllConnections(); server.close() })
  sink.url = `http://127.0.0.1:${server.address().port}`
  sink.next = async () => {
    while (received.length === 0) await once(server, 'received')
    return received.shift()
  }
  // A change can start before the event of the previous change is removed from the outbox. Then
  // both are sent.
  const seen = new Set()
  sink.nextNew = async () => {
    for (;;) {
      const event = await sink.next()
      if (!seen.has(event.id)) {
        seen.add(event.id)
        return event
      }
    }
  }
  return sink
}

test('events of changes', async (t) => {
  const sink = await newSink(t)
  const a = await serve(t, { sink: sink.url })
  const path = await a.create('ann')
  const id = idOf(path)
  const event = (kind, version, data) => ({ id: `${id}-${version}`, type: `com.ticketing.ticket.${kind}.v1`, key: id, data: JSON.stringify({ id, ...data, version }) })
  assert.deepEqual(await sink.nextNew(), event('created', 1, { title: 'Concert', price: 1500, owner: 'ann', onSale: true }))
  await a.as('ann', 'PUT', path, '{"title":"Opera","price":1,"onSale":true,"version":1}')
  assert.deepEqual(await sink.nextNew(), event('updated', 2, { title: 'Opera', price: 1, owner: 'ann', onSale: true }))
  await a.as('ann', 'POST', path + '/transfer', '{"to":"bob"}')
  assert.deepEqual(await sink.nextNew(), event('transferred', 3, { title: 'Opera', price: 1, owner: 'bob', onSale: false }))
  await a.deleted('bob')
  assert.deepEqual(await sink.nextNew(), event('updated', 4, { title: 'Opera', price: 1, onSale: false }))
})

test('an event that the sink refuses', async (t) => {
  const sink = await newSink(t)
  sink.status = () => 503
  const a = await serve(t, { sink: sink.url })
  const path = await a.create('ann')
  const refused = await sink.next()
  await a.store.deliver() // wait until the delivery has ended
  sink.status = () => 200
  await a.create('ann') // the next change of any ticket
  assert.deepEqual(await sink.next(), refused)
  await a.store.deliver()
  const tickets = database.collection(a.name)
  assert.equal((await tickets.findOne({ _id: new ObjectId(idOf(path)) })).outbox, undefined)
  await tickets.updateOne({ _id: new ObjectId(idOf(path)) }, { $set: { outbox: Array(100).fill('{}') } })
  want(await a.as('ann', 'POST', path + '/transfer', '{"to":"bob"}'), 503, failure('The service is unavailable. Try again shortly.'))
})
