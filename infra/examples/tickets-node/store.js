import { NotFoundError, UnavailableError } from '@ticketing/auth'
import { CloudEvent, HTTP } from 'cloudevents'
import { ObjectId } from 'mongodb'

export const types = {
  created: 'com.ticketing.ticket.created.v1',
  updated: 'com.ticketing.ticket.updated.v1',
  transferred: 'com.ticketing.ticket.transferred.v1',
}

const outboxLimit = 100 // undelivered events of a ticket

// A Store is the collection of tickets, and the sink of their events. A ticket is one document
// with the outbox of its events. The comments of ../tickets/events.go say what the outbox
// guarantees.
export class Store {
  #tickets
  #sink
  #delivery = null // the running delivery
  #again = false // a change happened during the running delivery

  constructor(database, sink) {
    this.#tickets = database.collection('tickets')
    this.#sink = sink
  }

  async createIndexes() {
    for (const keys of [{ onSale: 1, _id: 1 }, { owner: 1 }, { pending: 1 }]) await this.#tickets.createIndex(keys)
  }

  async find(id) {
    const ticket = /^[0-9a-f]{24}$/.test(id) ? await this.#tickets.findOne({ _id: new ObjectId(id) }) : null
    if (!ticket) throw new NotFoundError('There is no such ticket.')
    return ticket
  }

  list(after, limit) {
    return this.#tickets.find({ onSale: true, _id: { $gt: after } }).sort({ _id: 1 }).limit(limit).toArray()
  }

  async create(ticket) {
    ticket._id = new ObjectId()
    this.#record(ticket, types.created)
    await this.#tickets.insertOne(ticket)
    this.deliver()
  }

  // change applies a change to a ticket, and writes it with its event in one replacement. The
  // filter has the version that was read. After a concurrent change it matches no document. Then
  // change reads the ticket and applies the change again.
  async change(id, type, apply) {
    for (;;) {
      const ticket = await this.find(id)
      const unchanged = { _id: ticket._id, version: ticket.version }
      apply(ticket)
      ticket.version++
      this.#record(ticket, type)
      const { matchedCount } = await this.#tickets.replaceOne(unchanged, ticket)
      if (matchedCount === 1) {
        this.deliver()
        return ticket
      }
    }
  }

  // removeOwner removes a deleted user from the user's tickets. After a failure, a second call
  // continues. A call for a user without tickets changes nothing.
  async removeOwner(user) {
    const owned = await this.#tickets.find({ owner: user }).project({ _id: 1 }).toArray()
    for (const { _id } of owned) {
      const transferred = new Error('the ticket has another owner')
      await this.change(_id.toString(), types.updated, (ticket) => {
        if (ticket.owner !== user) throw transferred
        Object.assign(ticket, { owner: '', onSale: false })
      }).catch((err) => { if (err !== transferred) throw err })
    }
  }

  // #record adds the event of a change to the outbox of the ticket.
  #record(ticket, type) {
    if (!this.#sink) return
    const { _id, title, price, owner, onSale, version, outbox = [] } = ticket
    if (outbox.length >= outboxLimit) throw new UnavailableError({ cause: new Error('the ticket has too many undelivered events') })
    const id = _id.toString()
    const event = new CloudEvent({
      id: `${id}-${version}`, source: '/api/tickets', type, subject: id, partitionkey: id,
      data: { id, title, price, owner: owner || undefined, onSale, version },
    })
    Object.assign(ticket, { outbox: [...outbox, JSON.stringify(event)], pending: true })
  }

  // deliver sends the events in the outboxes of all tickets. At most one delivery runs at a time.
  // It ends at the first event that the sink does not accept.
  deliver() {
    if (!this.#sink) return
    this.#again = true
    this.#delivery ??= this.#run()
    return this.#delivery
  }

  async #run() {
    while (this.#again) {
      this.#again = false
      try {
        for await (const ticket of this.#tickets.find({ pending: true })) await this.#send(ticket)
      } catch (err) {
        console.error(JSON.stringify({ msg: 'events remain in the outbox', error: err.message }))
      }
    }
    this.#delivery = null
  }

  async #send({ _id, version, outbox }) {
    for (const event of outbox) {
      const { headers, body } = HTTP.binary(new CloudEvent(JSON.parse(event)))
      const response = await fetch(this.#sink, { method: 'POST', headers, body, signal: AbortSignal.timeout(5_000) })
      if (!response.ok) throw new Error(`the sink answered ${response.status}`)
    }
    await this.#tickets.updateOne({ _id, version }, { $unset: { outbox: '', pending: '' } })
  }
}
