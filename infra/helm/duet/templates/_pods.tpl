{{/* What every pod of ours is: an account without rights, a root file system that cannot be written. */}}
{{- define "duet.pod.security" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "duet.container.security" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  privileged: false
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* Where pods run: the `pod` of a component's values. */}}
{{- define "duet.pod.placement" -}}
{{- with .imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "duet.pod.labels" -}}
{{- $root := index . 0 -}}
{{- include "duet.selector" (list $root (index . 1)) }}
{{- with (index . 2).labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A change of the settings starts new pods. */}}
{{- define "duet.pod.annotations" -}}
checksum/settings: {{ include (print (index . 0).Template.BasePath "/settings.yaml") (index . 0) | sha256sum }}
{{- with (index . 1).annotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "duet.image" -}}
image: "{{ index . 1 }}:{{ default (index . 0).Chart.AppVersion (index . 0).Values.image.tag }}"
imagePullPolicy: {{ (index . 0).Values.image.pullPolicy }}
{{- end -}}

{{/* The environment of a process of ours: (list root settings env). */}}
{{- define "duet.env" -}}
envFrom:
  - configMapRef: {name: {{ include "duet.fullname" (index . 0) }}-settings}
{{- if or (index . 1) (index . 2) }}
env:
{{- range $name, $value := index . 1 }}
  - name: {{ $name }}
    value: {{ $value | quote }}
{{- end }}
{{- with index . 2 }}
{{ toYaml . | indent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "duet.mounts" -}}
- {name: secrets, mountPath: /run/secrets, readOnly: true}
- {name: tmp, mountPath: /tmp}
- {name: data, mountPath: /var/lib/duet}
{{- end -}}

{{/* Volumes of a process of ours: (list secret text-of-the-data-volume). */}}
{{- define "duet.volumes" -}}
- name: secrets
  secret: {secretName: {{ index . 0 }}, defaultMode: 288}
- name: tmp
  emptyDir: {}
- name: data
{{ index . 1 | indent 2 }}
{{- end -}}

{{/* Where steps work: of their own where results go to a bucket, else shared. */}}
{{- define "duet.dagster.data" -}}
{{- if .Values.dagster.results -}}
emptyDir: {sizeLimit: {{ .Values.dagster.storage.size }}}
{{- else -}}
persistentVolumeClaim: {claimName: {{ default (printf "%s-dagster" (include "duet.fullname" .)) .Values.dagster.storage.existingClaim }}}
{{- end -}}
{{- end -}}
