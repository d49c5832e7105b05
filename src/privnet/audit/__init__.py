"""The audit: a fleet compared with its plan, by someone who took no part in building it.

``dump.sh`` asks a host's kernel, ``probe.pl`` asks its resolvers and sends packets between containers; ``actual``
reads the answers strictly, ``checks`` compares them with the plan. It shares the plan with the deploy and nothing
else: no parser, no template (but for the digests of managed files), no opinion.

===============  ==========================================================================================
``fleet``        read this first: what is asked of which host, and when
``connection``   testinfra's SSH backend with a limit of time and of size
``actual``       a dump, parsed into frozen values
``checks/``      one pure function a check: host plan and actual state → finding
``session``      the dialogue with ``probe.pl``
``dns``          DNS messages; ``names`` what is asked and what must be answered
``reach``        which containers are to reach each other, which are not, and whether they do
``plugin``       pytest items, one a host and check; ``report`` their lines on a terminal and as JSON
===============  ==========================================================================================
"""
