// Checks of refused commands, and that they do not affect other clients.

import assert from 'node:assert/strict';
import { refusal } from './peer.js';
import { check } from './scenario.js';

check('rpc_without_handler', async scenario => {
  const peer = await scenario.connected();
  assert.equal(await refusal(peer.client.rpc('sum', peer.encode([1, 2]))), 108);
});

check('send_without_handler', async scenario => {
  const peer = await scenario.connected();
  await peer.client.send(peer.encode('hello'));
  await peer.waitRefused(3508);
});

check('publish_without_subscription', async scenario => {
  const peer = await scenario.connected();
  assert.equal(await refusal(peer.client.publish(scenario.channel, peer.encode('hello'))), 103);
  assert.equal(await refusal(peer.client.publish('nowhere:room', peer.encode('hello'))), 102);
});

check('reads_without_subscription', async scenario => {
  const { client } = await scenario.connected();
  assert.equal(await refusal(client.history(scenario.channel)), 103);
  assert.equal(await refusal(client.presence(scenario.channel)), 103);
  assert.equal(await refusal(client.presenceStats(scenario.channel)), 103);
});

check('presence_disabled', async scenario => {
  const { subscription } = await scenario.joined('ann', { channel: scenario.small });
  assert.equal(await refusal(subscription.presence()), 108);
  assert.equal(await refusal(subscription.presenceStats()), 108);
});

check('history_of_another_epoch', async scenario => {
  const { subscription } = await scenario.joined();
  assert.equal(await refusal(subscription.history({ limit: 10, since: { offset: 0, epoch: 'foreign' } })), 112);
});

check('unknown_namespace', async scenario => {
  const peer = await scenario.connected();
  const room = peer.room('nowhere:room');
  room.subscription.subscribe();
  await room.eventLog.wait('unsubscribed', { code: 102 });
});

check('subscribed_twice', async scenario => {
  const room = await scenario.joined();
  const request = { channel: scenario.channel, token: scenario.token() };
  const rejection = await new Promise((resolve, reject) => {
    room.peer.client._call({ subscribe: request }).then(reject, resolve);
  });
  assert.equal(rejection.error.code, 105);
  rejection.next();
});

check('oversized_message', async scenario => {
  const [room, other] = [await scenario.joined('ann'), await scenario.joined('bob')];
  await room.publish('x'.repeat(60_000));
  await other.eventLog.wait('publication');
  // The SDK converts the close code 1009 to its own code 3.
  await assert.rejects(room.publish('x'.repeat(70_000)));
  await room.peer.waitRefused(3);
  await other.publish('unharmed');
  await other.waitPublications('x'.repeat(60_000), 'unharmed');
});

check('binary_payload', async scenario => {
  const reader = await scenario.joined('reader', { protobuf: false });
  const elsewhere = await scenario.joined('watcher', { channel: scenario.small, protobuf: false });
  const sender = await scenario.joined('sender', { protobuf: true });
  const binary = await scenario.joined('binary', { protobuf: true });
  const payload = Uint8Array.of(0, 255, 32, 110, 111, 116);
  await sender.subscription.publish(payload);
  await reader.peer.waitRefused(3506);
  for (const room of [sender, binary]) {
    await room.eventLog.wait('publication');
    assert.deepEqual([...room.eventLog.all('publication')[0].data], [...payload]);
  }
  await sender.publish('still here');
  await binary.eventLog.wait('publication', { number: 2 });
  await scenario.backend.publish(scenario.small, 'unharmed');
  await elsewhere.waitPublications('unharmed');
});
