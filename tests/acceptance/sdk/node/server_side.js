// Checks of what the server does unasked: personal channels, the server API's commands, ends of sessions.

import assert from 'node:assert/strict';
import { connectionToken } from './backend.js';
import { check } from './scene.js';

check('personal_channel', async scene => {
  const peer = await scene.connected();
  const channel = `#${scene.user('ann')}`;
  const context = await peer.diary.wait('subscribed', { channel });
  assert.ok(context.recoverable);
  await scene.backend.publish(channel, 'for you', 'and again');
  await peer.diary.wait('publication', { number: 2, channel });
  const heard = peer.diary.all('publication').map(publication => peer.decode(publication.data));
  assert.deepEqual(heard, ['for you', 'and again']);
});

check('channels_of_the_token', async scene => {
  const { channel } = scene;
  const token = connectionToken(scene.user('ann'), { subs: { [channel]: { data: { topic: 'fires' } } } });
  const peer = await scene.connected('ann', { token });
  const context = await peer.diary.wait('subscribed', { channel });
  assert.deepEqual(peer.decode(context.data), { topic: 'fires' });
  const join = await peer.diary.wait('join', { channel });
  assert.equal(join.info.client, peer.id);
  const other = await scene.joined('bob');
  const otherId = other.peer.id;
  await other.publish('hello');
  const publication = await peer.diary.wait('publication', { channel });
  assert.equal(peer.decode(publication.data), 'hello');
  other.peer.client.disconnect();
  const leave = await peer.diary.wait('leave', { channel });
  assert.equal(leave.info.client, otherId);
});

check('api_disconnect', async scene => {
  const peer = await scene.connected();
  await scene.backend.call('disconnect', { user: scene.user('ann') });
  const { reason } = await peer.waitRefused(3503);
  assert.equal(reason, 'force disconnect');
});

check('api_disconnect_with_own_code', async scene => {
  const peer = await scene.connected();
  await scene.backend.call('disconnect', { user: scene.user('ann'), disconnect: { code: 4501, reason: 'banned' } });
  const { reason } = await peer.waitRefused(4501);
  assert.equal(reason, 'banned');
});

check('api_disconnect_without_reason', async scene => {
  const peer = await scene.connected();
  await scene.backend.call('disconnect', { user: scene.user('ann'), disconnect: { code: 4502 } });
  const { reason } = await peer.waitRefused(4502);
  assert.ok(reason);
});

check('api_reconnect', async scene => {
  const room = await scene.joined();
  const first = room.peer.id;
  await scene.backend.call('disconnect', { user: scene.user('ann'), disconnect: { code: 3011, reason: 'move' } });
  await room.peer.waitLost(3011);
  const context = await room.diary.wait('subscribed', { number: 2 });
  assert.ok(context.recovered);
  assert.notEqual(room.peer.id, first);
  await scene.backend.publish(scene.channel, 'still here');
  await room.waitHeard('still here');
});

check('api_unsubscribe', async scene => {
  const room = await scene.joined();
  const marker = await room.peer.subscribe(scene.small);
  await scene.backend.call('unsubscribe', { user: scene.user('ann'), channel: scene.channel });
  await room.diary.wait('unsubscribed', { code: 2000 });
  await scene.backend.publish(scene.channel, 'too late');
  await scene.backend.publish(scene.small, 'marker');
  await marker.waitHeard('marker');
  assert.deepEqual(room.heard(), []);
});

check('api_subscribe', async scene => {
  const [peer, { channel }, user] = [await scene.connected(), scene, scene.user('ann')];
  await scene.backend.call('subscribe', { user, channel, data: { topic: 'fires' } });
  const context = await peer.diary.wait('subscribed', { channel });
  assert.deepEqual(peer.decode(context.data), { topic: 'fires' });
  await scene.backend.publish(channel, 'hello');
  const publication = await peer.diary.wait('publication', { channel });
  assert.equal(peer.decode(publication.data), 'hello');
  await scene.backend.call('unsubscribe', { user, channel });
  await peer.diary.wait('unsubscribed', { channel });
});

check('api_refresh', async scene => {
  const peer = await scene.connected();
  await scene.backend.call('refresh', { user: scene.user('ann'), expired: true });
  await peer.waitLost(3005);
});
