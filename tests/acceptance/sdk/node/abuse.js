// Checks of what is refused, and that it harms nobody else.

import assert from 'node:assert/strict';
import { refusal } from './peer.js';
import { check } from './scene.js';

check('rpc_without_handler', async scene => {
  const peer = await scene.connected();
  assert.equal(await refusal(peer.client.rpc('sum', peer.encode([1, 2]))), 108);
});

check('send_without_handler', async scene => {
  const peer = await scene.connected();
  await peer.client.send(peer.encode('hello'));
  await peer.waitRefused(3508);
});

check('publish_from_outside', async scene => {
  const peer = await scene.connected();
  assert.equal(await refusal(peer.client.publish(scene.channel, peer.encode('hello'))), 103);
  assert.equal(await refusal(peer.client.publish('nowhere:room', peer.encode('hello'))), 102);
});

check('questions_from_outside', async scene => {
  const { client } = await scene.connected();
  assert.equal(await refusal(client.history(scene.channel)), 103);
  assert.equal(await refusal(client.presence(scene.channel)), 103);
  assert.equal(await refusal(client.presenceStats(scene.channel)), 103);
});

check('presence_that_is_off', async scene => {
  const { subscription } = await scene.joined('ann', { channel: scene.small });
  assert.equal(await refusal(subscription.presence()), 108);
  assert.equal(await refusal(subscription.presenceStats()), 108);
});

check('history_of_a_foreign_epoch', async scene => {
  const { subscription } = await scene.joined();
  assert.equal(await refusal(subscription.history({ limit: 10, since: { offset: 0, epoch: 'foreign' } })), 112);
});

check('unknown_namespace', async scene => {
  const peer = await scene.connected();
  const room = peer.room('nowhere:room');
  room.subscription.subscribe();
  await room.diary.wait('unsubscribed', { code: 102 });
});

check('subscribed_twice', async scene => {
  const room = await scene.joined();
  const request = { channel: scene.channel, token: scene.token() };
  const rejection = await new Promise((resolve, reject) => {
    room.peer.client._call({ subscribe: request }).then(reject, resolve);
  });
  assert.equal(rejection.error.code, 105);
  rejection.next();
});

check('oversized_message', async scene => {
  const [room, other] = [await scene.joined('ann'), await scene.joined('bob')];
  await room.publish('x'.repeat(60_000));
  await other.diary.wait('publication');
  // The SDK makes its own code 3 of the close code 1009.
  await assert.rejects(room.publish('x'.repeat(70_000)));
  await room.peer.waitRefused(3);
  await other.publish('unharmed');
  await other.waitHeard('x'.repeat(60_000), 'unharmed');
});

check('binary_payload', async scene => {
  const reader = await scene.joined('reader', { protobuf: false });
  const elsewhere = await scene.joined('watcher', { channel: scene.small, protobuf: false });
  const sender = await scene.joined('sender', { protobuf: true });
  const binary = await scene.joined('binary', { protobuf: true });
  const payload = Uint8Array.of(0, 255, 32, 110, 111, 116);
  await sender.subscription.publish(payload);
  await reader.peer.waitRefused(3506);
  for (const room of [sender, binary]) {
    await room.diary.wait('publication');
    assert.deepEqual([...room.diary.all('publication')[0].data], [...payload]);
  }
  await sender.publish('still here');
  await binary.diary.wait('publication', { number: 2 });
  await scene.backend.publish(scene.small, 'unharmed');
  await elsewhere.waitHeard('unharmed');
});
