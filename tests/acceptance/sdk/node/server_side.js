// Checks of actions of the server: personal channels, commands of the server API, session expiry.

import assert from 'node:assert/strict';
import { connectionToken } from './backend.js';
import { check } from './scenario.js';

check('personal_channel', async scenario => {
  const peer = await scenario.connected();
  const channel = `#${scenario.user('ann')}`;
  const context = await peer.eventLog.wait('subscribed', { channel });
  assert.ok(context.recoverable);
  await scenario.backend.publish(channel, 'for you', 'and again');
  await peer.eventLog.wait('publication', { number: 2, channel });
  const heard = peer.eventLog.all('publication').map(publication => peer.decode(publication.data));
  assert.deepEqual(heard, ['for you', 'and again']);
});

check('channels_of_the_token', async scenario => {
  const { channel } = scenario;
  const token = connectionToken(scenario.user('ann'), { subs: { [channel]: { data: { topic: 'fires' } } } });
  const peer = await scenario.connected('ann', { token });
  const context = await peer.eventLog.wait('subscribed', { channel });
  assert.deepEqual(peer.decode(context.data), { topic: 'fires' });
  const join = await peer.eventLog.wait('join', { channel });
  assert.equal(join.info.client, peer.id);
  const other = await scenario.joined('bob');
  const otherId = other.peer.id;
  await other.publish('hello');
  const publication = await peer.eventLog.wait('publication', { channel });
  assert.equal(peer.decode(publication.data), 'hello');
  other.peer.client.disconnect();
  const leave = await peer.eventLog.wait('leave', { channel });
  assert.equal(leave.info.client, otherId);
});

check('api_disconnect', async scenario => {
  const peer = await scenario.connected();
  await scenario.backend.call('disconnect', { user: scenario.user('ann') });
  const { reason } = await peer.waitRefused(3503);
  assert.equal(reason, 'force disconnect');
});

check('api_disconnect_with_own_code', async scenario => {
  const peer = await scenario.connected();
  await scenario.backend.call('disconnect', { user: scenario.user('ann'), disconnect: { code: 4501, reason: 'banned' } });
  const { reason } = await peer.waitRefused(4501);
  assert.equal(reason, 'banned');
});

check('api_disconnect_without_reason', async scenario => {
  const peer = await scenario.connected();
  await scenario.backend.call('disconnect', { user: scenario.user('ann'), disconnect: { code: 4502 } });
  const { reason } = await peer.waitRefused(4502);
  assert.ok(reason);
});

check('api_reconnect', async scenario => {
  const room = await scenario.joined();
  const first = room.peer.id;
  await scenario.backend.call('disconnect', { user: scenario.user('ann'), disconnect: { code: 3011, reason: 'move' } });
  await room.peer.waitLost(3011);
  const context = await room.eventLog.wait('subscribed', { number: 2 });
  assert.ok(context.recovered);
  assert.notEqual(room.peer.id, first);
  await scenario.backend.publish(scenario.channel, 'still here');
  await room.waitPublications('still here');
});

check('api_unsubscribe', async scenario => {
  const room = await scenario.joined();
  const marker = await room.peer.subscribe(scenario.small);
  await scenario.backend.call('unsubscribe', { user: scenario.user('ann'), channel: scenario.channel });
  await room.eventLog.wait('unsubscribed', { code: 2000 });
  await scenario.backend.publish(scenario.channel, 'too late');
  await scenario.backend.publish(scenario.small, 'marker');
  await marker.waitPublications('marker');
  assert.deepEqual(room.published(), []);
});

check('api_subscribe', async scenario => {
  const [peer, { channel }, user] = [await scenario.connected(), scenario, scenario.user('ann')];
  await scenario.backend.call('subscribe', { user, channel, data: { topic: 'fires' } });
  const context = await peer.eventLog.wait('subscribed', { channel });
  assert.deepEqual(peer.decode(context.data), { topic: 'fires' });
  await scenario.backend.publish(channel, 'hello');
  const publication = await peer.eventLog.wait('publication', { channel });
  assert.equal(peer.decode(publication.data), 'hello');
  await scenario.backend.call('unsubscribe', { user, channel });
  await peer.eventLog.wait('unsubscribed', { channel });
});

check('api_refresh', async scenario => {
  const peer = await scenario.connected();
  await scenario.backend.call('refresh', { user: scenario.user('ann'), expired: true });
  await peer.waitLost(3005);
});
