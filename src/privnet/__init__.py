"""Private networks for groups of applications over a fleet of Linux hosts, from YAML.

Begin with ``compiler``: it is one line a pass. Imports go to the left only (``tests/test_layers.py``)::

    {diagnostics, unread} ◀ model ◀ fields ◀ indentation ◀ shape ◀ {load, lock_lines} ◀ {check, store, progress} ◀ plan
    plan ◀ render ◀ compiler ◀ {report, new, committed} ◀ hosts ◀ lab ◀ {deploy, audit} ◀ importer ◀ cli

===============  ==========================================================================================
``diagnostics``  a problem: code, place, sentence, help; and how problems are shown
``unread``       output that nobody reads to its end
``model``        frozen pydantic models of the documents, checked identifiers, the lock file's content
``fields``       which fields the models have
``indentation``  entries that stand at another depth than what they belong to
``shape``        which shape a document has, and what is said when it has another
``load``         the only reader of YAML: text → nodes with positions → model
``schema``       JSON Schemas for editors, from the models
``check``        rules across documents; they yield problems and never raise
``lock_lines``   the lock file as privnet writes it, read quickly
``store``        the lock file on disk
``progress``     which hosts have what the lock file says
``plan``         numbers for what is new, then what every host is to be: mesh, overlay, names, guard, containers
``render``       the plan of a host → managed files, through ``templates/``
``compiler``     load → lock file → check → allocate → plan
``report``       what ``privnet plan``, ``names``, ``render`` and ``explain`` say
``new``          new documents and entries, put into files that people wrote
``committed``    what git has of a fleet
``hosts``        the hosts of a fleet, however wrong the rest of its declaration is
``lab``          a real fleet on this machine
``known_hosts``  SSH host keys of the lock file for SSH clients
``sudo``         what sudo says on a host, and what to do about it
``deploy``       the only place that imports pyinfra: one question a host, three waves of changes
``host/``        programs that run on a host, in shell
``audit``        the only place that imports testinfra; shares no code with ``deploy``
``importer``     declaration and lock file again, from what the hosts remember
``cli``          ``privnet …``
===============  ==========================================================================================

A feature has one name in every layer (``mesh``, ``overlay``, ``names``, ``guard``, ``containers``): who has
followed one from plan to audit has seen them all.
"""
