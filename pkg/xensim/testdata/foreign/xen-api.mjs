// Drives the simulator with the npm package xen-api, the client of Xen Orchestra: connect, objects, calls, tasks,
// barrier, events, import and export of a disk. Prints "ok" at the end.
import assert from 'node:assert/strict'
import { createClient } from 'xen-api'

const [url, password] = process.argv.slice(2)
const xapi = createClient({ url, auth: { user: 'root', password }, allowUnauthorized: true })
await xapi.connect()
await xapi.objectsFetched
assert.equal(xapi.pool.name_label, 'demo')

const objects = Object.values(xapi.objects.all)
const one = (type, name) => objects.find(o => o.$type === type && o.name_label === name)
const sr = one('SR', 'Local storage')
const template = one('VM', 'Debian Bookworm 12')
assert.ok(sr !== undefined && template !== undefined)

// a call, and its effect as an event
const network = one('network', 'vlan-less internal')
await xapi.call('network.set_name_description', network.$ref, 'seen by xen-api')
await xapi.barrier(network.$ref)
assert.equal(xapi.getObjectByRef(network.$ref).name_description, 'seen by xen-api')

// a call in the background
const clone = await xapi.callAsync('VM.clone', template.$ref, 'from xen-api')
await xapi.barrier(clone)
assert.equal(xapi.getObjectByRef(clone).name_label, 'from xen-api')

// a task that the client watches itself
const task = await xapi.call('Async.VM.clone', clone, 'watched')
const watched = await xapi.watchTask(task)
await xapi.call('task.destroy', task)
await xapi.barrier(watched)
assert.equal(xapi.getObjectByRef(watched).name_label, 'watched')

// failures keep their code and parameters
await assert.rejects(xapi.call('VM.start', clone, false, false), { code: 'VM_IS_TEMPLATE', params: [clone, 'start'] })

// a disk, in and out
const size = 4 * 1024 * 1024
const vdi = await xapi.call('VDI.create', {
  name_label: 'disk of xen-api', name_description: '', SR: sr.$ref, virtual_size: String(size), type: 'user',
  sharable: false, read_only: false, other_config: {}, xenstore_data: {}, sm_config: {}, tags: [],
})
const content = Buffer.alloc(size, 'xen-api ')
await xapi.putResource(content, '/import_raw_vdi', { query: { vdi, format: 'raw' }, task: true })
const { body } = await xapi.getResource('/export_raw_vdi', { query: { vdi, format: 'raw' } })
const chunks = []
for await (const chunk of body) chunks.push(chunk)
assert.ok(Buffer.concat(chunks).equals(content), 'the disk came back changed')

// what is destroyed leaves the client's memory by an event
await xapi.call('VM.destroy', watched)
await xapi.barrier(network.$ref)
assert.equal(xapi.getObjectByRef(watched, undefined), undefined)
await xapi.disconnect()
console.log('ok')
process.exit(0)
