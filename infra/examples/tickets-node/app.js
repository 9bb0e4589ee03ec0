import { BadRequestError, errorHandler, ForbiddenError, NotFoundError, RequestValidationError, UnavailableError } from '@ticketing/auth/express'
import { HTTP } from 'cloudevents'
import express from 'express'
import { ObjectId } from 'mongodb'
import { Problem } from './problem.js'
import { types } from './store.js'

const userDeleted = 'com.ticketing.user.deleted.v1'

// createApp returns the routes of the service. The middleware requireAuth sets req.currentUser.
export function createApp(store, { requireAuth }) {
  const app = express()
  app.disable('x-powered-by').disable('etag').enable('strict routing').enable('case sensitive routing')
  app.set('query parser', (query) => new URLSearchParams(query))
  app.use((req, res, next) => {
    res.set({ 'Cache-Control': 'no-store', 'X-Content-Type-Options': 'nosniff' })
    next()
  })
  const body = express.raw({ type: () => true, limit: 16 << 10, inflate: false })
  const otherMethod = (allow) => (req, res) => {
    res.set('Allow', allow)
    throw new Problem(405, 'This method is not allowed here.')
  }

  app.route('/api/tickets')
    .get(async (req, res) => {
      const { limit, after } = page(req.query)
      const found = await store.list(after, limit + 1)
      const tickets = found.slice(0, limit).map(view)
      send(res, 200, { tickets, next: found.length > limit ? tickets.at(-1).id : undefined })
    })
    .post(requireAuth, body, async (req, res) => {
      const input = new Input(req)
      const ticket = { title: input.title(), price: input.price(), owner: req.currentUser.id, onSale: true, version: 1 }
      input.check()
      await store.create(ticket)
      res.location(`/api/tickets/${ticket._id}`)
      send(res, 201, { ticket: view(ticket) })
    })
    .all(otherMethod('GET, HEAD, POST'))

  app.route('/api/tickets/:id')
    .get(async (req, res) => send(res, 200, { ticket: view(await store.find(req.params.id)) }))
    .put(requireAuth, body, async (req, res) => {
      const input = new Input(req)
      const title = input.title()
      const price = input.price()
      const onSale = input.member('onSale', 'OnSale must be true or false.', (v) => typeof v === 'boolean')
      // The client sends the version that it has read, so it cannot overwrite a change that it has not seen.
      const version = input.member('version', 'Version must be the version that you have read.', (v) => Number.isSafeInteger(v) && v > 0)
      input.check()
      send(res, 200, await changeOwn(req, types.updated, (ticket) => {
        if (ticket.version !== version) throw new Problem(409, 'The ticket has changed. Read it again.')
        Object.assign(ticket, { title, price, onSale })
      }))
    })
    .all(otherMethod('GET, HEAD, PUT'))

  app.route('/api/tickets/:id/transfer')
    .post(requireAuth, body, async (req, res) => {
      const input = new Input(req)
      const owner = input.member('to', 'To must be the id of another user.', (v) => typeof v === 'string' && /^[\w-]{1,128}$/.test(v) && v !== req.currentUser.id)
      input.check()
      send(res, 200, await changeOwn(req, types.transferred, (ticket) => Object.assign(ticket, { owner, onSale: false })))
    })
    .all(otherMethod('POST'))

  // The broker sends events here. It retries after 5xx, and not after 400. An event that arrives
  // twice changes nothing the second time.
  app.post('/', body, async (req, res) => {
    const event = parseEvent(req)
    if (event.type !== userDeleted || typeof event.data?.userId !== 'string' || event.data.userId === '') {
      throw new BadRequestError(`The event must be ${userDeleted} with a userId.`)
    }
    await store.removeOwner(event.data.userId)
    res.status(204).end()
  })

  async function changeOwn(req, type, apply) {
    const ticket = await store.change(req.params.id, type, (ticket) => {
      if (ticket.owner !== req.currentUser.id) throw new ForbiddenError('Only the owner may do this.')
      apply(ticket)
    })
    return { ticket: view(ticket) }
  }

  app.use(() => { throw new NotFoundError('There is nothing at this path.') })
  app.use((err, req, res, next) => next(/^Mongo(Network|ServerSelection)/.test(err.name) ? new UnavailableError({ cause: err }) : err))
  app.use(errorHandler)
  return app
}

function send(res, status, body) {
  res.setHeader('Content-Type', 'application/json') // Express would add a charset
  res.status(status).send(Buffer.from(JSON.stringify(body)))
}

function view({ _id, title, price, owner, onSale, version }) {
  return { id: _id, title, price, owner: owner || undefined, onSale, version }
}

function page(query) {
  const input = new Input()
  input.members = Object.fromEntries([...new Set(query.keys())].map((name) => [name, query.getAll(name)]))
  const one = (name, standard, message, valid) =>
    name in input.members ? input.member(name, message, (v) => v.length === 1 && valid(v[0]))?.[0] : standard
  const limit = one('limit', 20, 'Limit must be a number from 1 to 100.', (v) => /^0*([1-9]\d?|100)$/.test(v))
  const after = one('after', '0'.repeat(24), 'After must be the member next of a page.', (v) => /^[0-9a-f]{24}$/i.test(v))
  input.check()
  return { limit: Number(limit), after: new ObjectId(after) }
}

// An Input is the JSON object of a request, and the errors of its members.
class Input {
  errors = []

  constructor(req) {
    if (!req) return
    if (!req.is('application/json')) throw new Problem(415, 'The body must be application/json without an encoding.')
    try {
      this.members = JSON.parse(text(req)) ?? {}
    } catch {}
    if (typeof this.members !== 'object' || Array.isArray(this.members)) throw new BadRequestError('The body must be a JSON object.')
  }

  // member returns a member. It must be present, not null, and valid.
  member(name, message, valid) {
    const value = Object.hasOwn(this.members, name) ? this.members[name] : undefined
    if (value != null && valid(value)) return value
    this.errors.push({ msg: message, path: name })
  }

  title() {
    return this.member('title', 'Title must have 1 to 200 characters, and no control characters.', (v) =>
      typeof v === 'string' && v.trim() !== '' && [...v.trim()].length <= 200 && !/\p{Cc}/u.test(v) && v.isWellFormed())?.trim()
  }

  price() {
    return this.member('price', 'Price must be a whole number of cents from 1 to 100000000.', (v) => Number.isInteger(v) && v >= 1 && v <= 1e8)
  }

  check() {
    if (this.errors.length > 0) throw new RequestValidationError(this.errors)
  }
}

// text returns the body. It throws an error unless the body is valid UTF-8 without a byte order mark.
function text(req) {
  return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(req.body)
}

function parseEvent(req) {
  try {
    const event = HTTP.toEvent({ headers: req.headers, body: text(req) })
    if (!Array.isArray(event) && event.validate()) return event
  } catch {}
  throw new BadRequestError('The request is not a valid CloudEvent.')
}
