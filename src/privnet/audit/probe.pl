# The audit's hands on a host: sends packets from inside network namespaces and answers them there, as it is told on standard
# input, and ends with it. It knows nothing of DNS or of the plan. Needs perl-base alone, which is on every Debian host.
#
#   listen NETNS ADDRESS IDENT PORT...     answer on these UDP and TCP ports; one that is taken is replaced by a free one
#   job NETNS ID udp|tcp ADDRESS PORT DF MILLISECONDS HEX      NETNS "-" is the host itself
#   run          do all jobs at once; prints "ID HEX" or "ID !ERROR" for each, then "done"
#   handshakes   "peer KEY AGE" for each peer that has had one, then "done"
use strict; use warnings;
use Socket; use Fcntl; use POSIX (); use Errno; use IO::Handle;

my ($program, $mode, @arguments) = @ARGV;
my $TICKS = POSIX::sysconf(POSIX::_SC_CLK_TCK());
$SIG{PIPE} = 'IGNORE';
$| = 1;

sub now { return (POSIX::times())[0] / $TICKS }

sub error_name {
	my $number = $! + 0;
	for my $name (qw(ECONNREFUSED ENETUNREACH EHOSTUNREACH EMSGSIZE EPERM EACCES ETIMEDOUT ECONNRESET)) {
		no strict 'refs';
		return "!$name" if &{"Errno::$name"}() == $number;
	}
	return "!errno$number";
}

sub inside {
	my ($netns, @words) = @_;
	my @self = ('perl', '-e', 'eval $ARGV[0]; die $@ if $@', $program, @words);
	my @command = $netns eq '-' ? @self : ('ip', 'netns', 'exec', $netns, @self);
	exec { $command[0] } @command or POSIX::_exit(127);
}

# --- jobs ---------------------------------------------------------------------------------------

sub start {
	my ($job) = @_;
	my ($id, $kind, $address, $port, $df, $wait, $hex) = @$job;
	my $udp = $kind eq 'udp';
	my %it = (id => $id, udp => $udp, data => pack('H*', $hex // ''), reply => '', end => now() + $wait / 1000);
	$it{data} = pack('n', length $it{data}) . $it{data} unless $udp;
	socket(my $socket, PF_INET, $udp ? SOCK_DGRAM : SOCK_STREAM, 0) or return finish(\%it, error_name());
	$it{socket} = $socket;
	fcntl($socket, F_SETFL, O_NONBLOCK);
	# IP_MTU_DISCOVER = IP_PMTUDISC_DO; and never by a gateway out of the host (SO_DONTROUTE) where the host itself asks.
	setsockopt($socket, 0, 10, pack('i', 2)) if $df eq 'df';
	setsockopt($socket, SOL_SOCKET, SO_DONTROUTE, pack('i', 1)) if $df eq 'near';
	if (!connect($socket, sockaddr_in($port, inet_aton($address))) && !$!{EINPROGRESS}) {
		return finish(\%it, error_name());
	}
	if ($udp) {
		defined send($socket, $it{data}, 0) or return finish(\%it, error_name());
		$it{again} = now() + 0.4;
	}
	return \%it;
}

sub finish { my ($it, $result) = @_; print "$it->{id} $result\n"; return undef }

sub readable {
	my ($it) = @_;
	my $count = sysread($it->{socket}, my $data, 65536);
	if (!defined $count) { return $!{EAGAIN} ? $it : finish($it, error_name()) }
	return finish($it, unpack('H*', $data)) if $it->{udp};
	$it->{reply} .= $data;
	my $length = length($it->{reply}) < 2 ? 65536 : unpack('n', $it->{reply});
	return finish($it, unpack('H*', substr($it->{reply}, 2, $length))) if length($it->{reply}) >= 2 + $length;
	return finish($it, '!ECUT') if !$count;
	return $it;
}

sub writable {
	my ($it) = @_;
	$! = unpack('i', getsockopt($it->{socket}, SOL_SOCKET, SO_ERROR));
	return finish($it, error_name()) if $!;
	my $count = syswrite($it->{socket}, $it->{data});
	return finish($it, error_name()) if !defined $count;
	substr($it->{data}, 0, $count) = '';
	$it->{connected} = 1;
	return $it;
}

sub jobs {
	my @queue;
	while (my $line = <STDIN>) { chomp $line; push @queue, [split / /, $line] }
	my @open;
	while (@queue || @open) {
		while (@queue && @open < 64) { my $it = start(shift @queue); push @open, $it if $it }
		my ($reads, $writes, $wake) = ('', '', now() + 1);
		for my $it (@open) {
			if (!$it->{udp} && length $it->{data}) { vec($writes, fileno($it->{socket}), 1) = 1 }
			else { vec($reads, fileno($it->{socket}), 1) = 1 }
			for my $time ($it->{end}, $it->{again} // ()) { $wake = $time if $time < $wake }
		}
		my $left = $wake - now();
		select($reads, $writes, undef, $left > 0.01 ? $left : 0.01) if @open;
		my @still;
		for my $it (@open) {
			my $number = fileno($it->{socket});
			if (vec($reads, $number, 1)) { $it = readable($it) }
			elsif (vec($writes, $number, 1)) { $it = writable($it) }
			elsif (now() >= $it->{end}) { $it = finish($it, $it->{connected} ? '!ESILENT' : '!ETIMEDOUT') }
			elsif ($it->{again} && now() >= $it->{again}) { send($it->{socket}, $it->{data}, 0); $it->{again} = now() + 0.4 }
			push @still, $it if $it;
		}
		@open = @still;
	}
}

# --- listeners ----------------------------------------------------------------------------------

sub bound {
	my ($type, $address, $port) = @_;
	for my $try ($port, 0) {
		socket(my $socket, PF_INET, $type, 0) or die "socket: $!";
		setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, pack('i', 1)) if $type == SOCK_STREAM;
		setsockopt($socket, 0, 10, pack('i', 2)) if $type == SOCK_DGRAM;
		next if !bind($socket, sockaddr_in($try, inet_aton($address)));
		next if $type == SOCK_STREAM && !listen($socket, 64);
		fcntl($socket, F_SETFL, O_NONBLOCK);
		return $socket;
	}
	die "bind $address: $!\n";
}

sub port_of { my ($port) = sockaddr_in(getsockname($_[0])); return $port }

# The asker's number, who answers, and as many bytes as were asked with.
sub answer { my ($data, $ident) = @_; return substr(substr($data . ("\0" x 16), 0, 16) . $ident . ("\0" x length $data), 0, length($data) < 32 ? 32 : length $data) }

sub serve {
	my ($address, $ident, @ports) = @_;
	my @udp = map { bound(SOCK_DGRAM, $address, $_) } @ports;
	my @tcp = map { bound(SOCK_STREAM, $address, $_) } @ports;
	print join(' ', 'udp', map({ port_of($_) } @udp), 'tcp', map({ port_of($_) } @tcp)), "\n";
	my %clients;
	alarm 600;
	while (1) {
		my $reads = '';
		vec($reads, fileno($_), 1) = 1 for \*STDIN, @udp, @tcp, map { $_->[0] } values %clients;
		select($reads, undef, undef, undef);
		last if vec($reads, 0, 1);
		for my $socket (grep { vec($reads, fileno($_), 1) } @udp) {
			my $from = recv($socket, my $data, 65536, 0);
			send($socket, answer($data, $ident), 0, $from) if defined $from;
		}
		for my $number (grep { vec($reads, $_, 1) } keys %clients) {
			my $client = $clients{$number};
			my $count = sysread($client->[0], my $data, 65536);
			if (!$count) { delete $clients{$number} if defined $count || !$!{EAGAIN}; next }
			$client->[1] .= $data;
			next if length($client->[1]) < 2 + unpack('n', $client->[1]);
			my $reply = answer(substr($client->[1], 2), $ident);
			syswrite($client->[0], pack('n', length $reply) . $reply);
			delete $clients{$number};
		}
		for my $socket (grep { vec($reads, fileno($_), 1) } @tcp) {
			accept(my $client, $socket) or next;
			fcntl($client, F_SETFL, O_NONBLOCK);
			$clients{fileno $client} = [$client, ''] if keys %clients < 200;
		}
	}
}

# --- the dialogue -------------------------------------------------------------------------------

my ($alive, $hold, %jobs);

sub listener {
	my ($netns, @words) = @_;
	pipe(my $output, my $input) or die "pipe: $!";
	my $pid = fork() // die "fork: $!";
	if (!$pid) {
		open(STDIN, '<&', $alive); open(STDOUT, '>&', $input);
		inside($netns, 'serve', @words);
	}
	close $input;
	my $line = <$output> // "failed\n";
	print "listening $netns $line";
}

sub run_all {
	my @names = sort keys %jobs;
	my %running;
	my $heard = '';
	while (@names || %running) {
		while (@names && keys %running < 16) {
			my $netns = shift @names;
			# Pipes, each with a process that fills it: a host may have no directory that takes a file.
			pipe(my $input, my $feed) && pipe(my $output, my $said) or die "pipe: $!";
			my $feeder = fork() // die "fork: $!";
			if (!$feeder) {
				close($input);
				print $feed @{$jobs{$netns}};
				$feed->flush();
				POSIX::_exit(0);
			}
			my $pid = fork() // die "fork: $!";
			if (!$pid) {
				# exec flushes: lines that the old input still holds would move the place in the new one.
				close(STDIN);
				POSIX::dup2(fileno $input, 0); POSIX::dup2(fileno $said, 1);
				inside($netns, 'jobs');
			}
			vec($heard, fileno $output, 1) = 1;
			$running{fileno $output} = [$output, $netns, ''];
		}
		next if select(my $ready = $heard, undef, undef, undef) < 1;
		for my $number (grep { vec($ready, $_, 1) } keys %running) {
			my ($output, $netns) = @{$running{$number}};
			next if sysread($output, $running{$number}[2], 65536, length $running{$number}[2]);
			my @lines = split /(?<=\n)/, $running{$number}[2];
			delete $running{$number};
			vec($heard, $number, 1) = 0;
			1 while waitpid(-1, POSIX::WNOHANG()) > 0;
			my %missing = map { (split / /, $_)[0] => 1 } @{$jobs{$netns}};
			for my $line (@lines) { delete $missing{(split / /, $line)[0]}; print $line }
			print "$_ !ENETNS\n" for sort keys %missing;
		}
	}
	%jobs = ();
	print "done\n";
}

sub dialogue {
	pipe($alive, $hold) or die "pipe: $!";
	alarm 900;
	print "\nready\n";
	while (my $line = <STDIN>) {
		chomp $line;
		my ($verb, @words) = split / /, $line;
		if ($verb eq 'listen') { listener(@words) }
		elsif ($verb eq 'job') { my $netns = shift @words; push @{$jobs{$netns}}, "@words\n" }
		elsif ($verb eq 'run') { run_all() }
		elsif ($verb eq 'handshakes') {
			for (split /\n/, `wg show privnet latest-handshakes 2> /dev/null`) {
				my ($key, $when) = split /\t/;
				print "peer $key ", time() - $when, "\n" if $when;
			}
			print "done\n";
		}
	}
}

if ($mode eq 'dialogue') { dialogue() } elsif ($mode eq 'jobs') { jobs() } else { serve(@arguments) }
